//! Requests that wait, so that those behind them need not.
//!
//! Some are with a helper thread, which serves a copy of the request and builds the reply; the guest's
//! memory is touched by the queue's own thread only, when the reply has come back. Others wait for a
//! lock: they are kept here and tried again.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost_daemon::wakeup::Wakeup;
use vhost_daemon::worker::WatchId;

use super::{Cx, Taken, finish, refuse, serve_again};
use crate::file_system::GuestFileSystem;
use crate::helpers::Helpers;
use crate::server::{Interrupt, Reply, Server, Work};

/// The first wait between two tries, and the longest. A lock that this guest lets go is tried at once;
/// only for another guest's, or the host's, the time counts.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(32);

/// At most one in so many of a queue's requests waits for a lock: those that would unlock must find
/// room.
const WAITING_SHARE: usize = 4;

/// The waiting requests of one queue.
pub(super) struct Away {
    inbox: Arc<Inbox>,
    /// The watch of the inbox.
    watch: Option<WatchId>,
    /// With a helper, by number.
    sent: HashMap<u64, (Taken, Arc<Interrupt>)>,
    next: u64,
    /// For a lock.
    waiting: Vec<Waiting>,
}

struct Waiting {
    taken: Taken,
    body: Vec<u8>,
    interrupt: Arc<Interrupt>,
    wait: Duration,
    again: Instant,
}

/// Where helpers put what they have done.
struct Inbox {
    done: Mutex<Vec<Done>>,
    arrived: Condvar,
    wakeup: Wakeup,
}

struct Done {
    number: u64,
    served: io::Result<Work>,
    reply: Vec<u8>,
}

impl Inbox {
    fn done(&self) -> MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, done: Done) {
        self.done().push(done);
        self.arrived.notify_one();
        self.wakeup.wake();
    }

    /// All that has come, at least one.
    fn wait(&self) -> Vec<Done> {
        let none = |done: &mut Vec<Done>| done.is_empty();
        let done = self.arrived.wait_while(self.done(), none);
        mem::take(&mut *done.unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request at a helper: whatever becomes of it there, the queue hears of it.
struct Errand {
    inbox: Arc<Inbox>,
    done: Option<Done>,
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.inbox.put(done);
        }
    }
}

impl Away {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            inbox: Arc::new(Inbox {
                done: Mutex::default(),
                arrived: Condvar::new(),
                wakeup: Wakeup::new()?,
            }),
            watch: None,
            sent: HashMap::new(),
            next: 0,
            waiting: Vec::new(),
        })
    }

    pub(super) fn watch(&mut self, cx: &mut Cx) -> io::Result<()> {
        self.watch = Some(cx.watch(&self.inbox.wakeup)?);
        Ok(())
    }

    /// Whether `watch` is what tells of replies, rather than of kicks.
    pub(super) fn is_told_by(&self, watch: WatchId) -> bool {
        self.watch == Some(watch)
    }

    fn interrupt(&self) -> Arc<Interrupt> {
        let inbox = self.inbox.clone();
        Arc::new(Interrupt::new(move || inbox.wakeup.wake()))
    }

    /// Has a helper serve the request.
    pub(super) fn send<F: GuestFileSystem>(
        &mut self,
        server: &Arc<Server<F>>,
        helpers: &Helpers,
        taken: Taken,
        body: Vec<u8>,
    ) {
        let (number, interrupt) = (self.next, self.interrupt());
        self.next += 1;
        server.waits(taken.header.unique, &interrupt);
        let (header, room) = (taken.header, taken.chain.writable.len());
        let entry = taken.entry.clone();
        self.sent.insert(number, (taken, interrupt.clone()));
        let mut errand = Errand {
            inbox: self.inbox.clone(),
            done: Some(Done {
                number,
                served: Err(io::Error::from_raw_os_error(libc::EIO)),
                reply: Vec::new(),
            }),
        };
        let server = server.clone();
        helpers.submit(Box::new(move || {
            let Some(done) = &mut errand.done else { return };
            done.served = if interrupt.is_raised() {
                Err(io::Error::from_raw_os_error(libc::EINTR))
            } else {
                let mut reply = Reply::new(&mut done.reply, room);
                serve_again(
                    &server,
                    &header,
                    (&body, entry),
                    Some(interrupt),
                    &mut reply,
                )
            };
        }));
    }

    /// Keeps a request that waits for a lock.
    pub(super) fn wait<F: GuestFileSystem>(
        &mut self,
        cx: &mut Cx,
        server: &Server<F>,
        taken: Taken,
        body: Vec<u8>,
    ) {
        if self.waiting.len() >= usize::from(cx.queue().size()) / WAITING_SHARE {
            let error = io::Error::from_raw_os_error(libc::ENOLCK);
            let unique = taken.header.unique;
            return refuse(cx, taken.token, unique, taken.chain.writable, &error);
        }
        let interrupt = self.interrupt();
        server.waits(taken.header.unique, &interrupt);
        self.waiting.push(Waiting {
            taken,
            body,
            interrupt,
            wait: FIRST_WAIT,
            again: Instant::now() + FIRST_WAIT,
        });
        cx.wake_after(FIRST_WAIT);
    }

    /// Something has happened: a helper is done, a lock may be free, a request was interrupted.
    pub(super) fn woken<F: GuestFileSystem>(&mut self, cx: &mut Cx, server: &Server<F>) {
        self.inbox.wakeup.clear();
        let done = mem::take(&mut *self.inbox.done());
        self.answer(cx, server, done);
        for waiting in &mut self.waiting {
            waiting.again = cx.queue().now();
        }
    }

    fn answer<F: GuestFileSystem>(&mut self, cx: &mut Cx, server: &Server<F>, done: Vec<Done>) {
        for mut done in done {
            let Some((taken, interrupt)) = self.sent.remove(&done.number) else {
                continue;
            };
            server.waited(taken.header.unique, &interrupt);
            let reply = Reply::resume(&mut done.reply, taken.chain.writable.len());
            finish(cx, server, taken, reply, done.served);
        }
    }

    /// Tries the requests that wait for a lock again, those whose time has come.
    pub(super) fn try_again<F: GuestFileSystem>(&mut self, cx: &mut Cx, server: &Server<F>) {
        if self.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut next = LONGEST_WAIT;
        for mut waiting in mem::take(&mut self.waiting) {
            if waiting.again <= now {
                let mut bytes = Vec::new();
                let mut reply = Reply::new(&mut bytes, waiting.taken.chain.writable.len());
                let served = waiting.serve(server, &mut reply);
                if !matches!(served, Ok(Work::Blocked)) {
                    server.waited(waiting.taken.header.unique, &waiting.interrupt);
                    finish(cx, server, waiting.taken, reply, served);
                    continue;
                }
                waiting.wait = (waiting.wait * 2).min(LONGEST_WAIT);
                waiting.again = now + waiting.wait;
            }
            next = next.min(waiting.again.saturating_duration_since(now));
            self.waiting.push(waiting);
        }
        if !self.waiting.is_empty() {
            cx.wake_after(next);
        }
    }

    /// Ends all waits. Who waits for a lock hears that somebody has it; what helpers are at is awaited.
    pub(super) fn stop<F: GuestFileSystem>(&mut self, cx: &mut Cx, server: &Server<F>) {
        for waiting in mem::take(&mut self.waiting) {
            let taken = waiting.taken;
            let unique = taken.header.unique;
            server.waited(unique, &waiting.interrupt);
            // Not EINTR: Linux's client makes ERESTARTSYS of it, which programs see where no signal came.
            let error = io::Error::from_raw_os_error(libc::EAGAIN);
            refuse(cx, taken.token, unique, taken.chain.writable, &error);
        }
        for (_, interrupt) in self.sent.values() {
            interrupt.hurry();
        }
        while !self.sent.is_empty() {
            let done = self.inbox.wait();
            self.answer(cx, server, done);
        }
    }
}

impl Waiting {
    fn serve<F: GuestFileSystem>(
        &self,
        server: &Server<F>,
        reply: &mut Reply<'_>,
    ) -> io::Result<Work> {
        if self.interrupt.is_raised() {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        let asked = (&self.body[..], self.taken.entry.clone());
        serve_again(server, &self.taken.header, asked, None, reply)
    }
}

//! One thread moves every byte of every standard stream, and takes the connections that announce them.
//!
//! It waits on one epoll instance, edge-triggered: a copy runs until both of its ends would block, so
//! whichever of them can go on wakes it.

mod copies;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringside_protocol::agent::Exit;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use self::copies::Copies;
use super::copy::{Copy, Kind};
use super::events::Events;
use super::streams::{Announcement, Progress, Streams, answer};
use crate::sys;

/// An announcement is one short line: who takes longer is not our host.
const SLOWEST_ANNOUNCEMENT: Duration = Duration::from_secs(10);

/// How many connections may be announcing at a time.
const MOST_ANNOUNCING: usize = 64;

const LISTENER: u64 = 0;
const WAKER: u64 = 1;
const FIRST: u64 = 2;

/// Names one copy, for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CopyId(u64);

/// What other threads hold of it.
#[derive(Debug)]
pub(super) struct Mover {
    shared: Mutex<Shared>,
    waker: OwnedFd,
}

#[derive(Debug, Default)]
struct Shared {
    streams: Streams,
    orders: Vec<Order>,
    last_id: u64,
}

#[derive(Debug)]
enum Order {
    Start(CopyId, Copy),
    EndSoon(CopyId),
    Stop(Vec<CopyId>),
    /// Tells of the end once these have sent what was there.
    Ended(Vec<CopyId>, Exit),
}

impl Mover {
    /// Starts the thread. `listener` does not block.
    pub(super) fn start(listener: OwnedFd, events: Arc<Events>) -> io::Result<Arc<Self>> {
        let mover = Arc::new(Self {
            shared: Mutex::default(),
            waker: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let inside = Inside::new(Arc::clone(&mover), listener, events)?;
        std::thread::Builder::new()
            .name("streams".to_owned())
            .stack_size(super::STACK)
            .spawn(move || inside.run())?;
        Ok(mover)
    }

    /// Hands an announced connection over.
    pub(super) fn claim(&self, name: &str) -> Option<OwnedFd> {
        self.lock().streams.claim(name)
    }

    /// Moves bytes from now on.
    pub(super) fn copy(&self, source: OwnedFd, sink: OwnedFd, kind: Kind) -> io::Result<CopyId> {
        let copy = Copy::new(source, sink, kind)?;
        let id = {
            let mut shared = self.lock();
            shared.last_id += 1;
            CopyId(FIRST + shared.last_id)
        };
        self.order(Order::Start(id, copy));
        Ok(id)
    }

    /// Ends an input after what has arrived.
    pub(super) fn end_soon(&self, id: CopyId) {
        self.order(Order::EndSoon(id));
    }

    /// Closes both ends of copies.
    pub(super) fn stop(&self, ids: Vec<CopyId>) {
        if !ids.is_empty() {
            self.order(Order::Stop(ids));
        }
    }

    /// Tells the host of a process's end when all it wrote through `outputs` is sent.
    pub(super) fn ended(&self, outputs: Vec<CopyId>, exit: Exit) {
        self.order(Order::Ended(outputs, exit));
    }

    fn order(&self, order: Order) {
        self.lock().orders.push(order);
        // It fails only when the counter is full, and then the thread wakes up anyway.
        let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread owns.
struct Inside {
    mover: Arc<Mover>,
    epoll: Arc<OwnedFd>,
    listener: OwnedFd,
    announcing: HashMap<u64, Announcement>,
    next_announcement: u64,
    copies: Copies,
}

impl Inside {
    fn new(mover: Arc<Mover>, listener: OwnedFd, events: Arc<Events>) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let fixed = [(&listener, LISTENER), (&mover.waker, WAKER)];
        for (descriptor, name) in fixed {
            epoll::add(&epoll, descriptor, EventData::new_u64(name), EventFlags::IN)?;
        }
        Ok(Self {
            mover,
            copies: Copies::new(Arc::clone(&epoll), events),
            epoll,
            listener,
            announcing: HashMap::new(),
            next_announcement: u64::MAX,
        })
    }

    fn run(mut self) {
        let mut ready = Vec::with_capacity(32);
        loop {
            let timeout = self.timeout().map(|wait| Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            });
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    eprintln!("ringside-agent: cannot wait for streams: {error}");
                    return;
                }
            }
            for event in &ready {
                self.woken(event.data.u64());
            }
            self.copies.take_turns();
            self.copies.tell();
            self.tidy();
        }
    }

    /// How long there is nothing to do unless something happens.
    fn timeout(&mut self) -> Option<Duration> {
        if self.copies.has_turns() {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let unclaimed = self.mover.lock().streams.expire(now);
        let slowest = self.announcing.values().map(|one| one.since).min();
        let announced = slowest.map(|since| since + SLOWEST_ANNOUNCEMENT);
        let times = [unclaimed, announced, self.copies.patience_ends()];
        let first = times.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn woken(&mut self, by: u64) {
        match by {
            LISTENER => self.accept(),
            WAKER => self.obey(),
            id if self.announcing.contains_key(&id) => self.listen_to(id),
            id => self.copies.advance(CopyId(id)),
        }
    }

    fn accept(&mut self) {
        let Ok(connection) = sys::vsock::accept(&self.listener) else {
            return;
        };
        if self.announcing.len() >= MOST_ANNOUNCING {
            return answer(
                &connection,
                Err("too many connections announce streams at once"),
            );
        }
        self.next_announcement -= 1;
        let id = self.next_announcement;
        let flags = EventFlags::IN | EventFlags::ET;
        if epoll::add(&self.epoll, &connection, EventData::new_u64(id), flags).is_ok() {
            let announcement = Announcement::new(connection, Instant::now());
            self.announcing.insert(id, announcement);
            self.listen_to(id);
        }
    }

    fn listen_to(&mut self, id: u64) {
        let Some(announcement) = self.announcing.get_mut(&id) else {
            return;
        };
        let progress = announcement.read();
        if progress == Progress::More {
            return;
        }
        let Some(announcement) = self.announcing.remove(&id) else {
            return;
        };
        let connection = announcement.connection;
        let _ = epoll::delete(&self.epoll, &connection);
        match progress {
            Progress::Name(name) => self.keep(&name, connection),
            Progress::Broken(why) => answer(&connection, Err(why)),
            Progress::More => {}
        }
    }

    /// Says yes first: from the moment it is kept, the connection may be claimed and carry bytes.
    fn keep(&self, name: &str, connection: OwnedFd) {
        let mut shared = self.mover.lock();
        let now = Instant::now();
        if let Err(refusal) = shared.streams.may_keep(name, now) {
            return answer(&connection, Err(&refusal.to_string()));
        }
        answer(&connection, Ok(()));
        shared.streams.keep(name, connection, now);
    }

    fn obey(&mut self) {
        let _ = rustix::io::read(&self.mover.waker, &mut [0; 8]);
        let orders = std::mem::take(&mut self.mover.lock().orders);
        for order in orders {
            match order {
                Order::Start(id, copy) => self.copies.start(id, copy),
                Order::EndSoon(id) => self.copies.end_soon(id),
                Order::Stop(ids) => self.copies.stop(&ids),
                Order::Ended(outputs, exit) => self.copies.ended(&outputs, exit),
            }
        }
    }

    /// Lets go of what is not needed while nothing moves.
    fn tidy(&mut self) {
        let now = Instant::now();
        self.announcing
            .retain(|_, one| now < one.since + SLOWEST_ANNOUNCEMENT);
        if self.announcing.is_empty() {
            self.announcing.shrink_to_fit();
        }
        self.copies.tidy();
    }
}

//! One lane: a clone of /dev/fuse, a request queue, and the thread that owns both.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::init;
use super::journal::Journal;
use super::layout::{HEAD, Slots, reply_room};
use super::stop::Stop;
use super::urgent::Urgent;
use super::{Error, Result};
use crate::frontend::fs::{Caller, IN_HEADER_LEN, InitReply, OUT_HEADER_LEN, header};
use crate::frontend::fs::{IN_HEADER_BYTES, OUT_HEADER_BYTES, opcode, u32_at, u64_at};
use crate::frontend::{SlotQueue, Used};
use crate::sys;

/// Requests taken before the daemon hears of them: it starts on the first while more are read.
const BATCH: usize = 16;
/// What is under way at the end must be answered within this.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a wait for the daemon alone lasts, before stop is looked at again.
const TICK: Duration = Duration::from_millis(20);

/// What woke a lane that is not work.
const DAEMON: u64 = 1;
const WORK: u64 = 0;

/// Who is told of the answer to `INIT`.
pub(super) type Told = mpsc::Sender<Result<InitReply>>;

/// A request that the daemon has.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    opcode: u32,
    unique: u64,
    len: usize,
    room: usize,
    /// How long the journal was.
    recorded: usize,
}

pub(super) struct Lane {
    device: File,
    queue: SlotQueue,
    slots: Slots,
    asked: Vec<Asked>,
    urgent: Arc<Urgent>,
    stop: Arc<Stop>,
    told: Told,
    epoll: std::os::fd::OwnedFd,
    /// The kernel has ended the connection.
    unmounted: bool,
    bad: Option<Error>,
    journal: Option<Arc<Journal>>,
}

impl Lane {
    pub(super) fn new(
        device: File,
        queue: SlotQueue,
        urgent: Arc<Urgent>,
        (stop, told): (Arc<Stop>, Told),
        socket: Option<&UnixStream>,
    ) -> Result<Self> {
        let failed = |errno: rustix::io::Errno| Error::os("cannot set up epoll")(errno.into());
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let add = |fd: std::os::fd::BorrowedFd<'_>, data, flags| {
            epoll::add(&epoll, fd, EventData::new_u64(data), flags).map_err(failed)
        };
        use std::os::fd::AsFd;
        // Of several lanes that sleep one is enough for a request.
        add(device.as_fd(), WORK, EventFlags::IN | EventFlags::EXCLUSIVE)?;
        add(queue.call().as_fd(), WORK, EventFlags::IN)?;
        add(stop.event().as_fd(), WORK, EventFlags::IN)?;
        if let Some(socket) = socket {
            add(socket.as_fd(), DAEMON, EventFlags::RDHUP)?;
        }
        let driver = queue.queue();
        Ok(Self {
            slots: Slots::new(driver.memory(), driver.size())?,
            asked: vec![Asked::default(); usize::from(driver.size())],
            device,
            queue,
            urgent,
            stop,
            told,
            epoll,
            unmounted: false,
            bad: None,
            journal: None,
        })
    }

    /// Notes what is changed in `journal`.
    pub(super) fn recording(mut self, journal: Option<Arc<Journal>>) -> Self {
        self.journal = journal;
        self
    }

    /// Forwards until the mount has ended; `first` then tells the daemon so (`DESTROY`), which
    /// the kernel does for virtio-fs, and for /dev/fuse does not.
    ///
    /// # Errors
    /// What went wrong with the daemon.
    pub(super) fn run(mut self, first: bool) -> Result<()> {
        while !self.unmounted && !self.stop.is_raised() {
            if !self.turn()? {
                self.sleep()?;
            }
        }
        self.drain()?;
        if first && !self.stop.is_aborted() {
            self.say_goodbye()?;
        }
        self.bad.map_or(Ok(()), Err)
    }

    /// Moves what there is; whether there was anything.
    fn turn(&mut self) -> Result<bool> {
        let answered = self.answer()?;
        Ok(self.take()? + answered > 0)
    }

    /// From /dev/fuse to the daemon.
    fn take(&mut self) -> Result<usize> {
        let mut taken = 0;
        while taken < BATCH {
            let Some(slot) = self.queue.take_slot() else {
                break;
            };
            let Some(len) = self.read(slot)? else {
                self.queue.return_slot(slot);
                break;
            };
            self.forward(slot, len)?;
            taken += 1;
        }
        if taken > 0 {
            self.queue.kick()?;
        }
        Ok(taken)
    }

    /// Reads one request, if there is one.
    fn read(&mut self, slot: u16) -> Result<Option<usize>> {
        let memory = self.slots.memory();
        let [head, rest] = self.slots.request(slot);
        let parts = [memory.slice(head.0, head.1)?, memory.slice(rest.0, rest.1)?];
        loop {
            let error = match sys::fuse::read(&self.device, &parts) {
                Ok(len) => return Ok(Some(len)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                // ENOENT: the program gave up before its request was read.
                Some(libc::EINTR | libc::ENOENT) => {}
                Some(libc::EAGAIN) => return Ok(None),
                Some(libc::ENODEV | libc::ECONNABORTED) => {
                    self.unmounted = true;
                    return Ok(None);
                }
                _ => return Err(Error::os("cannot read /dev/fuse")(error)),
            }
        }
    }

    fn forward(&mut self, slot: u16, len: usize) -> Result<()> {
        let mut head = [0; HEAD];
        let head = &mut head[..len.min(HEAD)];
        let [(at, _), _] = self.slots.request(slot);
        self.slots.memory().read_into(at, head)?;
        let operation = u32_at(head, 4).unwrap_or(0);
        match operation {
            opcode::FORGET | opcode::BATCH_FORGET => {
                self.urgent.forget(&self.slots.copy(slot, len)?)?;
                self.queue.return_slot(slot);
                return Ok(());
            }
            opcode::INTERRUPT => {
                self.urgent.send(head)?;
                self.queue.return_slot(slot);
                return Ok(());
            }
            opcode::INIT => {
                init::mask_request(&mut head[IN_HEADER_LEN..]);
                self.slots.memory().write(at, head)?;
            }
            _ => {}
        }
        let body = head.get(IN_HEADER_LEN..).unwrap_or_default();
        let room = reply_room(operation, len, body);
        self.submit(
            slot,
            Asked {
                opcode: operation,
                unique: u64_at(head, 8).unwrap_or(0),
                len,
                room,
                recorded: self.journal.as_ref().map_or(0, |journal| journal.len()),
            },
        )
    }

    fn submit(&mut self, slot: u16, asked: Asked) -> Result<()> {
        self.asked[usize::from(slot)] = asked;
        let (chain, count) = self.slots.chain(slot, asked.len, asked.room);
        Ok(self.queue.submit(slot, &chain[..count])?)
    }

    /// From the daemon to /dev/fuse.
    fn answer(&mut self) -> Result<usize> {
        let mut answered = 0;
        while let Some((slot, used)) = self.queue.next_used()? {
            self.reply(slot, used)?;
            self.queue.return_slot(slot);
            answered += 1;
        }
        Ok(answered)
    }

    fn reply(&mut self, slot: u16, used: Used) -> Result<()> {
        let asked = self.asked[usize::from(slot)];
        if asked.opcode == opcode::DESTROY {
            // Ours. Some daemons answer it, some hand it back as it is.
            return Ok(());
        }
        let memory = self.slots.memory();
        let at = self.slots.out_header(slot);
        let mut out_header = [0; OUT_HEADER_LEN];
        memory.read_into(at, &mut out_header)?;
        let body = match check(&out_header, asked, used) {
            Ok(body) => body,
            Err(why) => {
                let (opcode, asked) = (asked.opcode, asked.len);
                self.bad
                    .get_or_insert(Error::BadReply { opcode, asked, why });
                return self.refuse(slot);
            }
        };
        if let Some(journal) = &self.journal
            && Journal::succeeded(&out_header)
        {
            let request = (asked.opcode, asked.len, asked.recorded);
            journal.note(request, &self.slots, slot)?;
        }
        let from = self.slots.reply_body(slot, asked.len);
        if asked.opcode == opcode::INIT {
            let told = init::parse_reply(&out_header, &memory.read(from, body)?);
            let refused = told.is_err();
            // Nobody listens to a second one.
            let _ = self.told.send(told);
            if refused {
                return self.refuse(slot);
            }
        }
        let parts = [memory.slice(at, OUT_HEADER_LEN)?, memory.slice(from, body)?];
        let written = sys::fuse::write(&self.device, &parts);
        let Err(error) = written else { return Ok(()) };
        match error.raw_os_error() {
            // Nobody waits any more.
            Some(libc::ENOENT | libc::ENODEV | libc::EPERM) => Ok(()),
            Some(libc::EINVAL) => {
                let (opcode, asked) = (asked.opcode, asked.len);
                let why = format!("the kernel does not take its {body} bytes");
                self.bad
                    .get_or_insert(Error::BadReply { opcode, asked, why });
                self.refuse(slot)
            }
            _ => Err(Error::os("cannot write /dev/fuse")(error)),
        }
    }

    /// Answers `EIO` in the daemon's stead.
    fn refuse(&mut self, slot: u16) -> Result<()> {
        let mut bytes = [0; OUT_HEADER_LEN];
        bytes[..4].copy_from_slice(&(OUT_HEADER_BYTES).to_le_bytes());
        bytes[4..8].copy_from_slice(&(-libc::EIO).to_le_bytes());
        bytes[8..].copy_from_slice(&self.asked[usize::from(slot)].unique.to_le_bytes());
        let (memory, at) = (self.slots.memory(), self.slots.out_header(slot));
        memory.write(at, &bytes)?;
        // The connection may have ended by now.
        let _ = sys::fuse::write(&self.device, &[memory.slice(at, OUT_HEADER_LEN)?]);
        Ok(())
    }

    /// Until a request or a reply comes, or the mount ends.
    fn sleep(&mut self) -> Result<()> {
        if !self.queue.may_sleep()? {
            return Ok(());
        }
        if self.queue.is_full() {
            // /dev/fuse may be readable all the time, and there is no room.
            return self.wait_for_daemon();
        }
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 4];
        match epoll::wait(&self.epoll, &mut events, None) {
            Ok((events, _)) => {
                if events.iter().any(|event| event.data.u64() == DAEMON) {
                    return Err(Error::DaemonGone);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::os("cannot wait")(errno.into())),
        }
        let taken = self.queue.call().take();
        taken.map(drop).map_err(Error::os("cannot read an eventfd"))
    }

    fn wait_for_daemon(&mut self) -> Result<()> {
        let waited = self.queue.call().wait(TICK);
        waited.map(drop).map_err(Error::os("cannot wait"))
    }

    /// Answers what is under way.
    fn drain(&mut self) -> Result<()> {
        let deadline = Instant::now() + DRAIN;
        self.answer()?;
        while self.queue.in_flight() > 0 && !self.stop.is_aborted() {
            if Instant::now() >= deadline {
                return Err(Error::Unanswered {
                    requests: self.queue.in_flight(),
                    timeout: DRAIN,
                });
            }
            if self.queue.may_sleep()? {
                self.wait_for_daemon()?;
            }
            self.answer()?;
        }
        Ok(())
    }

    fn say_goodbye(&mut self) -> Result<()> {
        let Some(slot) = self.queue.take_slot() else {
            return Ok(());
        };
        let asked = Asked {
            opcode: opcode::DESTROY,
            unique: u64::MAX - 1,
            len: IN_HEADER_LEN,
            room: 0,
            recorded: 0,
        };
        let bytes = header(IN_HEADER_BYTES, asked.opcode, asked.unique, Caller::root(0));
        let [(at, _), _] = self.slots.request(slot);
        self.slots.memory().write(at, &bytes)?;
        self.submit(slot, asked)?;
        self.queue.kick()?;
        self.drain()
    }
}

/// The length of a reply's body, or what is wrong with it.
fn check(
    header: &[u8; OUT_HEADER_LEN],
    asked: Asked,
    used: Used,
) -> std::result::Result<usize, String> {
    let (len, unique) = (
        u32_at(header, 0).unwrap_or(0),
        u64_at(header, 8).unwrap_or(0),
    );
    if used.len < OUT_HEADER_BYTES {
        return Err(format!("{} bytes hold no header", used.len));
    }
    if unique != asked.unique {
        return Err("it answers another request".to_owned());
    }
    let body = (len as usize).checked_sub(OUT_HEADER_LEN);
    body.filter(|body| *body <= asked.room)
        .ok_or_else(|| format!("{len} bytes in room for {}", asked.room + OUT_HEADER_LEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_checked_before_the_kernel_sees_them() {
        let asked = Asked {
            opcode: 1,
            unique: 7,
            len: 50,
            room: 128,
            recorded: 0,
        };
        let used = |len| Used { id: 0, len };
        let header = |len: u32, unique: u64| {
            let mut bytes = [0; OUT_HEADER_LEN];
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            bytes[8..].copy_from_slice(&unique.to_le_bytes());
            bytes
        };
        assert_eq!(check(&header(144, 7), asked, used(144)), Ok(128));
        assert_eq!(check(&header(16, 7), asked, used(16)), Ok(0));
        for (bytes, len) in [
            (header(16, 8), 16),
            (header(15, 7), 16),
            (header(145, 7), 145),
            (header(16, 7), 0),
        ] {
            assert!(check(&bytes, asked, used(len)).is_err());
        }
    }
}

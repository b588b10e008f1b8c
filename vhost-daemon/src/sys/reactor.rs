//! A queue thread's io_uring, safe to use: operations own what the kernel works on.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::Io;

/// Names a descriptor that [`Reactor::watch`] watches.
pub type WatchId = u32;

/// What [`Reactor::next_event`] found.
#[derive(Debug)]
pub enum Event<T> {
    /// An operation is done: its tag, the operation with its buffers, and the kernel's result.
    Done(T, Io, io::Result<u32>),
    /// A watched descriptor became readable (or the watch failed: read it and see).
    Ready(WatchId),
}

const WATCH_BIT: u64 = 1 << 63;
const TIMER: u64 = WATCH_BIT - 1;

/// A descriptor that is watched always, or when asked for.
#[derive(Clone, Copy)]
struct Watch {
    fd: RawFd,
    on_demand: bool,
    /// How often in a row the kernel ended it as soon as it was renewed.
    ended: u32,
}

/// An io_uring that one thread submits to and reaps, with the table of what is in flight.
///
/// `T` is the submitter's tag for an operation. Dropping the reactor waits until every operation
/// has completed, so that no kernel write into guest memory comes later.
pub struct Reactor<T> {
    ring: IoUring,
    // Boxed: the kernel may read the iovec arrays until completion, so entries must not move.
    slots: Vec<Box<Option<(T, Io)>>>,
    free: Vec<u32>,
    watches: Vec<Watch>,
    in_flight: usize,
    /// Boxed: the kernel reads it when the operation is handed over.
    timer: Box<Timespec>,
    timer_runs: bool,
    /// A watched descriptor cannot be watched any more: nobody would wake the thread.
    lost_watch: Option<i32>,
}

impl<T> Reactor<T> {
    /// No fewer operations are worth a system call of their own, before the thread sleeps.
    const FIRST_BATCH: usize = 4;

    /// A ring with room for `entries` submissions, made by the thread that will use it.
    ///
    /// # Errors
    /// io_uring_setup(2)'s: `ENOSYS` or `EPERM` where io_uring is missing or forbidden.
    pub fn new(entries: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries.saturating_mul(2))
            .build(entries)?;
        Ok(Self {
            ring,
            slots: Vec::new(),
            free: Vec::new(),
            watches: Vec::new(),
            in_flight: 0,
            timer: Box::default(),
            timer_runs: false,
            lost_watch: None,
        })
    }

    /// Registers `files`, in order, for [`IoFile::Registered`]. The kernel keeps them open.
    ///
    /// # Errors
    /// io_uring_register(2)'s.
    pub fn register_files(&self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        self.ring.submitter().register_files(&raw)
    }

    /// Watches `fd` for input until the reactor goes; each time some arrives [`Event::Ready`] with
    /// the returned id follows. The descriptor is not read. The caller keeps it open.
    ///
    /// # Errors
    /// When the submission queue is full and the kernel does not take it.
    pub fn watch(&mut self, fd: &impl AsRawFd) -> io::Result<WatchId> {
        let id = self.add_watch(fd, false)?;
        self.arm(id)?;
        Ok(id)
    }

    /// Watches `fd` only from each [`await_input`](Self::await_input) to the one event that follows: in
    /// between, input costs its sender nothing. The caller keeps it open.
    ///
    /// # Errors
    /// Never, below 2^32 watches.
    pub fn watch_on_demand(&mut self, fd: &impl AsRawFd) -> io::Result<WatchId> {
        self.add_watch(fd, true)
    }

    /// [`Event::Ready`] follows once there is input, at once if there is already.
    ///
    /// # Errors
    /// When the submission queue is full and the kernel does not take it.
    pub fn await_input(&mut self, id: WatchId) -> io::Result<()> {
        self.arm(id)
    }

    fn add_watch(&mut self, fd: &impl AsRawFd, on_demand: bool) -> io::Result<WatchId> {
        let id = u32::try_from(self.watches.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let fd = fd.as_raw_fd();
        self.watches.push(Watch {
            fd,
            on_demand,
            ended: 0,
        });
        Ok(id)
    }

    /// Queues `io` for the kernel; it goes with the next [`submit`](Self::submit) or
    /// [`wait`](Self::wait), or before when the kernel has little to do.
    ///
    /// # Errors
    /// Hands the tag back when the submission queue is full and the kernel does not take it.
    pub fn push(&mut self, tag: T, io: Io) -> Result<(), (T, io::Error)> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Box::new(None));
            // Requests in flight are bounded by the queue size, far below 2^32.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        let (_, io) = slot.insert((tag, io));
        let entry = io.entry().user_data(u64::from(index));
        if let Err(error) = self.push_entry(&entry) {
            self.free.push(index);
            return match self.slots[index as usize].take() {
                Some((tag, _)) => Err((tag, error)),
                None => Ok(()),
            };
        }
        self.in_flight += 1;
        self.hand_over_early();
        Ok(())
    }

    /// Hands over what is queued if the kernel has no more than that to do: a disk should not stand still
    /// while a batch is put together. Bursts of 32 go as 4, 4, 8 and 16.
    fn hand_over_early(&mut self) {
        let pending = self.ring.submission().len();
        if pending >= Self::FIRST_BATCH.max(self.in_flight.saturating_sub(pending)) {
            // What goes wrong here goes wrong again with the next submission, which tells.
            let _ = self.enter(pending, 0);
        }
    }

    /// Makes [`wait`](Self::wait) return after `delay` at the latest, once. While one such wish is
    /// pending, further ones are ignored.
    ///
    /// # Errors
    /// When the submission queue is full and the kernel does not take it.
    pub fn wake_after(&mut self, delay: Duration) -> io::Result<()> {
        if self.timer_runs {
            return Ok(());
        }
        *self.timer = delay.into();
        let entry = opcode::Timeout::new(&raw const *self.timer)
            .build()
            .user_data(TIMER);
        self.push_entry(&entry)?;
        self.timer_runs = true;
        Ok(())
    }

    /// How many operations have been pushed and not yet been returned by
    /// [`next_event`](Self::next_event).
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Hands queued operations to the kernel and lets it finish what it can without waiting.
    /// Makes a system call only if there is something to hand over or to finish.
    ///
    /// # Errors
    /// io_uring_enter(2)'s.
    pub fn submit(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        let (pending, work) = (queue.len(), queue.taskrun() || queue.cq_overflow());
        drop(queue);
        if pending > 0 || work {
            self.enter(pending, 0)?;
        }
        Ok(())
    }

    /// Hands queued operations to the kernel and waits for at least one event.
    ///
    /// # Errors
    /// io_uring_enter(2)'s; an interrupted wait is no error.
    pub fn wait(&mut self) -> io::Result<()> {
        if !self.ring.completion().is_empty() {
            return self.submit();
        }
        let pending = self.ring.submission().len();
        match self.enter(pending, 1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Why a descriptor is no longer watched, if one is not: what it tells would be missed.
    pub fn lost_watch(&self) -> Option<io::Error> {
        self.lost_watch.map(io::Error::from_raw_os_error)
    }

    /// Whether an event is there without a system call.
    pub fn has_event(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// The next event that has arrived, if any. Makes no system call, except to renew a watch.
    pub fn next_event(&mut self) -> Option<Event<T>> {
        loop {
            let completion = self.ring.completion().next()?;
            let data = completion.user_data();
            if data == TIMER {
                self.timer_runs = false;
                continue;
            }
            if data & WATCH_BIT != 0 {
                let id = u32::try_from(data & !WATCH_BIT).unwrap_or(u32::MAX);
                self.keep_watching(id, &completion);
                return Some(Event::Ready(id));
            }
            let Some(index) = u32::try_from(data)
                .ok()
                .filter(|i| (*i as usize) < self.slots.len())
            else {
                continue;
            };
            let Some((tag, io)) = self.slots[index as usize].take() else {
                continue;
            };
            self.free.push(index);
            self.in_flight -= 1;
            return Some(Event::Done(tag, io, kernel_result(completion.result())));
        }
    }

    /// Renews a watch that ended with `completion`, as one does when the completion queue is full. One that
    /// ends again and again is lost: what it watches is nothing that can be waited for (a device without
    /// poll(2), for one), and renewing it would keep the thread busy for ever.
    fn keep_watching(&mut self, id: WatchId, completion: &cqueue::Entry) {
        const MOST_ENDS: u32 = 16;
        let watch = self.watches.get_mut(id as usize);
        let Some(watch) = watch.filter(|watch| !watch.on_demand) else {
            return;
        };
        if cqueue::more(completion.flags()) {
            watch.ended = 0;
            return;
        }
        watch.ended += 1;
        let often = watch.ended > MOST_ENDS;
        let renewed = match completion.result() {
            failed @ ..0 => Err(failed.wrapping_neg()),
            // What epoll_ctl(2) answers for such a descriptor.
            _ if often => Err(libc::EPERM),
            _ => self
                .arm(id)
                .map_err(|error| error.raw_os_error().unwrap_or(libc::EBUSY)),
        };
        if let Err(why) = renewed {
            self.lost_watch = Some(why);
        }
    }

    fn arm(&mut self, id: WatchId) -> io::Result<()> {
        let watch = self.watches.get(id as usize).copied();
        let Watch { fd, on_demand, .. } = watch.ok_or(io::ErrorKind::NotFound)?;
        let entry = opcode::PollAdd::new(Fd(fd), u32::from(libc::POLLIN.unsigned_abs()))
            .multi(!on_demand)
            .build()
            .user_data(WATCH_BIT | u64::from(id));
        self.push_entry(&entry)
    }

    fn push_entry(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            let pending = self.ring.submission().len();
            self.enter(pending, 0)?;
        }
        // SAFETY: every pointer in `entry` is into a boxed slot (iovecs) or into guest memory
        // pinned by that slot's buffers; the slot keeps both until the completion is reaped, and
        // drop waits for all completions. Watch entries hold no pointer, a timeout's is boxed and
        // read when the entry is handed over.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::ErrorKind::ResourceBusy.into())
    }

    fn enter(&mut self, submit: usize, wait_for: u32) -> io::Result<()> {
        let submit = u32::try_from(submit).unwrap_or(u32::MAX);
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument pointer is passed; the counts are those of this ring.
        let entered = unsafe {
            self.ring
                .submitter()
                .enter::<Timespec>(submit, wait_for, flags, None)
        };
        match entered {
            Ok(_) => Ok(()),
            // The completion queue is full or memory is short for now: reap first, then again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl<T> Drop for Reactor<T> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "io_uring failed while draining; leaking its buffers");
                // The kernel may still write into them: better leaked than reused.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            while self.next_event().is_some() {}
        }
    }
}

fn kernel_result(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

//! Runs the tasks of one queue on its thread.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use vhost_daemon::wakeup::Wakeup;
use vhost_daemon::worker::Io;

use super::desk::Desk;
use super::{OperationId, Task};

/// The tasks of one queue; `T` says what each is for.
pub(crate) struct Tasks<T> {
    desk: Rc<Desk>,
    ready: Arc<Ready>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    stage: Stage<T>,
    // Made once and used for every task that comes here: a waker that outlives its task costs the
    // next one a poll.
    flag: Arc<Flag>,
    waker: Waker,
}

/// What is in a slot.
enum Stage<T> {
    Free,
    Running(T, Task),
    /// It has its result, and the kernel is still at what it gave up: until then nobody is told.
    Over(Finished<T>),
}

/// A task came to its end: nothing of it is in flight.
pub(crate) struct Finished<T> {
    /// What it was for.
    pub(crate) tag: T,
    /// Its result.
    pub(crate) result: io::Result<u32>,
}

/// The tasks that can go on.
struct Ready {
    slots: Mutex<VecDeque<u32>>,
    /// Readable when another thread added one.
    wakeup: Wakeup,
    owner: ThreadId,
}

/// Puts one slot on the list, once.
struct Flag {
    ready: Arc<Ready>,
    slot: u32,
    listed: AtomicBool,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready.push(self.slot);
        if thread::current().id() != self.ready.owner {
            self.ready.wakeup.wake();
        }
    }
}

impl Ready {
    fn push(&self, slot: u32) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.push_back(slot);
    }

    fn pop(&self) -> Option<u32> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.pop_front()
    }
}

impl<T> Tasks<T> {
    /// No tasks yet; they run on the calling thread.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            desk: Rc::default(),
            ready: Arc::new(Ready {
                slots: Mutex::default(),
                wakeup: Wakeup::new()?,
                owner: thread::current().id(),
            }),
            slots: Vec::new(),
            free: Vec::new(),
        })
    }

    /// Readable once a task can go on because of another thread; [`run`](Self::run) is due then.
    pub(crate) fn wakeup(&self) -> &Wakeup {
        &self.ready.wakeup
    }

    /// How many tasks have not come to their end.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether [`run`](Self::run) has something to do.
    pub(crate) fn has_ready(&self) -> bool {
        let slots = self.ready.slots.lock();
        !slots.unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes a task over; [`run`](Self::run) starts it.
    pub(crate) fn spawn(&mut self, tag: T, task: Task) {
        let index = self.free.pop().unwrap_or_else(|| self.add_slot());
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Running(tag, task);
        slot.waker.wake_by_ref();
    }

    fn add_slot(&mut self) -> u32 {
        // Each is a request in flight: far fewer than 2^32.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let flag = Arc::new(Flag {
            ready: self.ready.clone(),
            slot: index,
            listed: AtomicBool::new(false),
        });
        self.slots.push(Slot {
            stage: Stage::Free,
            waker: Waker::from(flag.clone()),
            flag,
        });
        index
    }

    /// Lets tasks go on until one comes to its end (the caller asks again) or all wait.
    pub(crate) fn run(&mut self) -> Option<Finished<T>> {
        while let Some(index) = self.ready.pop() {
            self.poll(index);
            if self.desk.has_abandoned(index) {
                continue;
            }
            let slot = &mut self.slots[index as usize];
            match std::mem::replace(&mut slot.stage, Stage::Free) {
                Stage::Over(finished) => {
                    self.free.push(index);
                    return Some(finished);
                }
                other => slot.stage = other,
            }
        }
        None
    }

    fn poll(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        // Before the poll: what wakes it meanwhile must not be lost.
        slot.flag.listed.store(false, Ordering::Release);
        let Stage::Running(_, task) = &mut slot.stage else {
            return;
        };
        let mut cx = Context::from_waker(&slot.waker);
        // A back end that panics must not take the queue along: its locks are released, the
        // request fails.
        let poll = || catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut cx)));
        let result = match self.desk.serve(index, poll) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(result)) => result,
            Err(_) => Err(io::Error::other("the back end panicked, which is a bug")),
        };
        // With the task goes what it was still waiting for.
        if let Stage::Running(tag, _) = std::mem::replace(&mut slot.stage, Stage::Free) {
            slot.stage = Stage::Over(Finished { tag, result });
        }
    }

    /// The next operation that a task wants the kernel to do; [`completed`](Self::completed) follows.
    pub(crate) fn next_operation(&self) -> Option<(OperationId, Io)> {
        self.desk.next_operation()
    }

    /// The kernel has done an operation; without `io`, it never took it.
    pub(crate) fn completed(&self, id: OperationId, io: Option<Io>, result: io::Result<u32>) {
        if let Some(task) = self.desk.completed(id, io, result) {
            self.slots[task as usize].waker.wake_by_ref();
        }
    }
}

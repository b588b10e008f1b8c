//! Where tasks hand in operations for their queue's io_uring, and fetch the results.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use vhost_daemon::worker::Io;

/// Names an operation that was handed in.
pub(crate) type OperationId = u32;

/// One thread's desk.
#[derive(Default)]
pub(super) struct Desk {
    waiting: RefCell<VecDeque<(OperationId, Io)>>,
    slots: RefCell<Slots>,
    /// The task that is being polled.
    task: Cell<u32>,
    /// Operations that are abandoned and not done.
    abandoned: Cell<usize>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<OperationId>,
}

/// One operation.
#[derive(Default)]
struct Slot {
    /// Whose it is.
    task: u32,
    waker: Option<Waker>,
    done: Option<(Option<Io>, io::Result<u32>)>,
    /// Nobody wants the result any more.
    abandoned: bool,
    /// Ends when the kernel is done, whether or not anyone waits.
    change: Option<Change>,
}

thread_local! {
    /// The desk of the queue whose task is being polled.
    static CURRENT: RefCell<Option<Rc<Desk>>> = const { RefCell::new(None) };
}

impl Desk {
    /// Polls `task` with this desk as the one where operations go.
    pub(super) fn serve<R>(self: &Rc<Self>, task: u32, poll: impl FnOnce() -> R) -> R {
        struct Restore(Option<Rc<Desk>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        self.task.set(task);
        poll()
    }

    /// The next operation for the kernel, oldest first.
    pub(super) fn next_operation(&self) -> Option<(OperationId, Io)> {
        self.waiting.borrow_mut().pop_front()
    }

    /// Whether the kernel is still at an operation that `task` has given up.
    pub(super) fn has_abandoned(&self, task: u32) -> bool {
        self.abandoned.get() > 0
            && (self.slots.borrow().slots.iter()).any(|slot| slot.abandoned && slot.task == task)
    }

    /// An operation is done; `io` is gone if the kernel never took it. Returns the task that had given it up.
    pub(super) fn completed(
        &self,
        id: OperationId,
        io: Option<Io>,
        result: io::Result<u32>,
    ) -> Option<u32> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.slots.get_mut(id as usize)?;
        slot.change = None;
        if slot.abandoned {
            let task = slot.task;
            slots.release(id);
            self.abandoned.update(|count| count - 1);
            return Some(task);
        }
        slot.done = Some((io, result));
        let waker = slot.waker.take();
        drop(slots);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    fn hand_in(&self, io: Io, change: Option<Change>, waker: &Waker) -> OperationId {
        let id = self.slots.borrow_mut().take(Slot {
            task: self.task.get(),
            waker: Some(waker.clone()),
            change,
            ..Slot::default()
        });
        self.waiting.borrow_mut().push_back((id, io));
        id
    }

    fn poll(&self, id: OperationId, waker: &Waker) -> Poll<(Option<Io>, io::Result<u32>)> {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots.slots[id as usize];
        let Some(done) = slot.done.take() else {
            match &mut slot.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return Poll::Pending;
        };
        slots.release(id);
        Poll::Ready(done)
    }

    fn abandon(&self, id: OperationId) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots.slots[id as usize];
        slot.waker = None;
        if slot.done.is_some() {
            slots.release(id);
        } else {
            slot.abandoned = true;
            self.abandoned.update(|count| count + 1);
        }
    }
}

impl Slots {
    fn take(&mut self, slot: Slot) -> OperationId {
        match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                // Each is an operation in flight: far fewer than 2^32.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    fn release(&mut self, id: OperationId) {
        self.slots[id as usize] = Slot::default();
        self.free.push(id);
    }
}

/// Does `io`: on the io_uring of the queue whose task this is, else at once. Operations name their
/// files as [`IoFile::Open`](vhost_daemon::worker::IoFile). The result is that of the kernel, with the
/// operation and its buffers.
///
/// If the future is dropped the kernel still finishes the operation, whose memory lives until then; its task
/// does not end before.
pub fn perform(io: Io) -> Perform {
    Perform {
        state: State::New(io, None),
    }
}

/// [`perform`] for an operation that changes a file: it counts among its `changes` until the kernel is
/// done with it, even if the future is dropped.
pub fn perform_change(io: Io, changes: &Arc<Changes>) -> Perform {
    Perform {
        state: State::New(io, Some(changes.clone())),
    }
}

/// The future of [`perform`].
pub struct Perform {
    state: State,
}

enum State {
    New(Io, Option<Arc<Changes>>),
    Submitted(Rc<Desk>, OperationId, Option<Arc<Changes>>),
    Finished,
}

impl Future for Perform {
    type Output = io::Result<(u32, Io)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.state, State::Finished) {
                State::New(io, changes) => match CURRENT.with_borrow(Option::clone) {
                    None => return Poll::Ready(run_here(io)),
                    Some(desk) => {
                        let change = changes.as_ref().map(Changes::begin);
                        let id = desk.hand_in(io, change, cx.waker());
                        self.state = State::Submitted(desk, id, changes);
                        return Poll::Pending;
                    }
                },
                State::Submitted(desk, id, changes) => match desk.poll(id, cx.waker()) {
                    Poll::Pending => {
                        self.state = State::Submitted(desk, id, changes);
                        return Poll::Pending;
                    }
                    Poll::Ready((Some(io), Err(error)))
                        if error.kind() == io::ErrorKind::Interrupted =>
                    {
                        self.state = State::New(io, changes);
                    }
                    Poll::Ready((Some(io), result)) => {
                        return Poll::Ready(result.map(|count| (count, io)));
                    }
                    Poll::Ready((None, result)) => {
                        let refused = || io::ErrorKind::ResourceBusy.into();
                        return Poll::Ready(Err(result.err().unwrap_or_else(refused)));
                    }
                },
                // A future is not polled again once it is done.
                State::Finished => return Poll::Pending,
            }
        }
    }
}

impl Drop for Perform {
    fn drop(&mut self) {
        if let State::Submitted(desk, id, _) = &self.state {
            desk.abandon(*id);
        }
    }
}

/// Does `io` on the calling thread.
pub(crate) fn run_here(io: Io) -> io::Result<(u32, Io)> {
    loop {
        match io.run_inline(&[]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|count| (count, io)),
        }
    }
}

/// The operations under way that change one file, of all threads.
#[derive(Debug, Default)]
pub struct Changes(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    begun: BTreeSet<u64>,
    /// Who waits for all changes before a number.
    waiting: Vec<(u64, Waker)>,
}

/// One of [`Changes`]; dropping it ends it.
#[derive(Debug)]
pub struct Change {
    changes: Arc<Changes>,
    number: u64,
}

impl Changes {
    fn state(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change begins.
    pub fn begin(self: &Arc<Self>) -> Change {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.begun.insert(number);
        drop(state);
        Change {
            changes: self.clone(),
            number,
        }
    }

    /// Waits until every change that has begun before this call has ended.
    pub async fn settled(&self) {
        let before = self.state().next;
        poll_fn(|cx| {
            let mut state = self.state();
            if state.begun.first().is_none_or(|first| *first >= before) {
                return Poll::Ready(());
            }
            state.waiting.push((before, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut state = self.changes.state();
        state.begun.remove(&self.number);
        let first = state.begun.first().copied().unwrap_or(u64::MAX);
        let mut waiting = std::mem::take(&mut state.waiting);
        let settled: Vec<_> = waiting
            .extract_if(.., |(before, _)| *before <= first)
            .collect();
        state.waiting = waiting;
        drop(state);
        for (_, waker) in settled {
            waker.wake();
        }
    }
}

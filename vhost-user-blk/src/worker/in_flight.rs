//! A request between its parsing and its answer.

use vhost_daemon::queue::{Buffers, Token};

use crate::request::{Range, StatusByte};
use crate::tasks::OperationId;

/// What an operation on the io_uring is for.
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost every request an allocation; the tag is as large as without tasks"
)]
pub enum Tag {
    /// A request that is this one operation, or comes to its next one by it.
    Request(InFlight),
    /// A task waits for it.
    Task(TaskOperation),
}

/// An operation of a task.
pub struct TaskOperation(pub(super) OperationId);

/// A request whose operation is under way.
pub struct InFlight {
    pub(super) token: Token,
    pub(super) status: StatusByte,
    pub(super) work: Work,
}

/// What is left to do of it once the operation is done.
pub(super) enum Work {
    Read(Transfer),
    Write(Transfer),
    Flush,
    /// Ranges still to discard.
    Discard(Vec<Range>),
    /// Ranges still to zero.
    WriteZeroes(Vec<Range>),
}

impl Work {
    /// The operation's name in the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Flush => "flush",
            Self::Discard(_) => "discard",
            Self::WriteZeroes(_) => "write zeroes",
        }
    }
}

/// A read or write on its way.
pub(super) struct Transfer {
    /// Where the next operation starts, in bytes.
    pub(super) offset: u64,
    /// Bytes moved so far.
    pub(super) done: u32,
    /// The guest's buffers that no operation has been started on.
    pub(super) rest: Buffers,
    /// The guest's buffers of the operation under way, where memory of ours stands in for them.
    pub(super) bounced: Option<Buffers>,
}

/// Memory of ours stands in for this much of a request at a time: what a guest can make us hold is
/// this times its requests in flight.
const BOUNCE: usize = 65536;

impl Transfer {
    pub(super) fn new(offset: u64, data: Buffers) -> Self {
        Self {
            offset,
            done: 0,
            rest: data,
            bounced: None,
        }
    }

    /// The buffers of the next operation: the guest's own where `alignment` allows, else memory of
    /// ours, filled for a write. `None` when memory is short.
    pub(super) fn next(&mut self, alignment: usize, is_write: bool) -> Option<Buffers> {
        if alignment == 1 || self.rest.is_aligned(alignment) {
            let all = self.rest.len();
            return self.rest.split_front(all);
        }
        let piece = self.rest.split_front(self.rest.len().min(BOUNCE))?;
        let ours = match piece.aligned(alignment)? {
            Some(ours) => ours,
            // This piece needs no help.
            None => return Some(piece),
        };
        if is_write {
            piece.copy_to(&ours, piece.len());
        } else {
            self.bounced = Some(piece);
        }
        Some(ours)
    }

    /// Notes that `count` bytes of `buffers` were moved, which lie at their front.
    pub(super) fn moved(&mut self, buffers: &Buffers, count: u32) {
        if let Some(guest) = &mut self.bounced {
            buffers.copy_to(guest, count as usize);
            guest.advance(count as usize);
        }
        self.done += count;
        self.offset += u64::from(count);
    }
}

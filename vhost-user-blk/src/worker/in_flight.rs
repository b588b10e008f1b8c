//! A request between its parsing and its answer.

use vhost_daemon::queue::{Buffers, Token};

use crate::request::{Range, StatusByte};

/// A request whose operation is under way.
pub struct InFlight {
    pub(super) token: Token,
    pub(super) status: StatusByte,
    pub(super) work: Work,
}

/// What is left to do of it once the operation is done.
pub(super) enum Work {
    Read {
        /// Bytes read so far.
        done: u32,
        /// The guest's buffers where the operation reads into memory of ours instead.
        bounced: Option<Buffers>,
    },
    Write,
    Flush,
    /// Ranges still to discard.
    Discard(Vec<Range>),
    /// Ranges still to zero.
    WriteZeroes(Vec<Range>),
}

impl Work {
    /// Notes that `count` more bytes of a read lie at the front of `buffers`, and brings them to
    /// the guest if those are ours. Returns the bytes read in all.
    pub(super) fn read_more(&mut self, buffers: &Buffers, count: u32) -> u32 {
        let Self::Read { done, bounced } = self else {
            return 0;
        };
        if let Some(guest) = bounced {
            buffers.copy_to(guest, count as usize);
            guest.advance(count as usize);
        }
        *done += count;
        *done
    }

    /// The operation's name in the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard(_) => "discard",
            Self::WriteZeroes(_) => "write zeroes",
        }
    }
}

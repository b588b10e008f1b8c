//! The loop of a queue's one thread.

mod context;
mod poll;
mod run;

use std::io;

pub use crate::sys::{Io, IoFile, WatchId};
pub use context::{Context, Submission};
pub use poll::PollPolicy;
pub(crate) use run::{Outcome, run};

use crate::queue::{Chain, Token};

/// A device's work on one queue. It lives on the queue's own thread from start to stop.
pub trait QueueWorker: Sized {
    /// What an operation on the io_uring carries until it is done; usually it holds the request's
    /// [`Token`].
    type Tag;

    /// Called once before the first request: register files, watch descriptors.
    ///
    /// # Errors
    /// The queue then stays stopped; the error is logged.
    fn start(&mut self, cx: &mut Context<Self::Tag>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Takes what the guest made available, [`Context::BATCH`] requests or so; returns how many. As many
    /// or more mean that there may be more at once.
    /// The default pops each one and hands it to [`request`](Self::request). A device that needs
    /// more than a request to go on (a frame to receive) pops by itself here.
    fn turn(&mut self, cx: &mut Context<Self::Tag>) -> usize {
        for done in 0..Context::<Self::Tag>::BATCH {
            match cx.pop() {
                Some((token, chain)) => self.request(cx, token, chain),
                None => return done,
            }
        }
        Context::<Self::Tag>::BATCH
    }

    /// Serves one request: completes it now, or pushes an operation whose tag carries the token.
    fn request(&mut self, cx: &mut Context<Self::Tag>, token: Token, chain: Chain);

    /// An operation is done.
    fn completed(
        &mut self,
        cx: &mut Context<Self::Tag>,
        tag: Self::Tag,
        io: Io,
        result: io::Result<u32>,
    );

    /// A watched descriptor has input. The next [`turn`](Self::turn) follows at once.
    fn ready(&mut self, cx: &mut Context<Self::Tag>, watch: WatchId) {
        let _ = (cx, watch);
    }

    /// Whether a request in the available ring is of use now. While `false` the worker sleeps
    /// although requests wait (receive buffers while no frame comes).
    fn wants_requests(&self) -> bool {
        true
    }

    /// How many things are under way that no operation on the io_uring stands for now, such as a
    /// request that waits for another queue. The drain goes on until there are none and no operation
    /// is in flight; what ends them has to make a watched descriptor readable.
    fn pending(&self) -> usize {
        0
    }

    /// The ring stops: bring what is held back to an end, as far as no operation of
    /// [`completed`](Self::completed) does it. Called before the drain.
    fn stop(&mut self, cx: &mut Context<Self::Tag>) {
        let _ = cx;
    }
}

//! The work on one queue: the only place that knows both the ring and the network.

mod control;
mod depth;
mod filled;
mod held;
mod landed;
mod patience;
mod receive;
mod throttle;
mod transmit;

use std::io;

use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::worker::{Context, Io, QueueWorker, WatchId};

use crate::backend::Port;

pub use control::Control;
pub use receive::Receive;
pub(crate) use throttle::Throttle;
pub use transmit::Transmit;

/// The worker of a queue of any role.
pub enum NetWorker<P: Port> {
    /// Network → guest.
    Receive(Box<Receive<P>>),
    /// Guest → network.
    Transmit(Transmit<P>),
    /// Commands.
    Control(Control<P>),
}

impl<P: Port> QueueWorker for NetWorker<P> {
    /// Frames go by plain system calls that do not wait: nothing is ever pushed.
    type Tag = ();

    fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        match self {
            Self::Receive(queue) => queue.start(cx),
            Self::Transmit(_) => Ok(()),
            Self::Control(queue) => {
                queue.start(cx);
                Ok(())
            }
        }
    }

    fn turn(&mut self, cx: &mut Context<()>) -> usize {
        match self {
            Self::Receive(queue) => queue.turn(cx),
            Self::Transmit(queue) => queue.turn(cx),
            Self::Control(queue) => queue.turn(cx),
        }
    }

    // `turn` pops by itself.
    fn request(&mut self, cx: &mut Context<()>, token: Token, _: Chain) {
        cx.complete(token, 0);
    }

    fn completed(&mut self, _: &mut Context<()>, (): (), _: Io, _: io::Result<u32>) {}

    fn ready(&mut self, _: &mut Context<()>, watch: WatchId) {
        if let Self::Receive(queue) = self {
            queue.ready(watch);
        }
    }

    fn wants_requests(&self) -> bool {
        match self {
            Self::Receive(queue) => queue.wants_buffers(),
            Self::Transmit(queue) => !queue.throttle.holds_back(),
            Self::Control(_) => true,
        }
    }

    fn stop(&mut self, cx: &mut Context<()>) {
        if let Self::Receive(queue) = self {
            queue.stop(cx);
        }
    }
}

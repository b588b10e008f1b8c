//! The work on one queue: the only place that knows both the ring and the sockets.

mod event;
mod held;
mod programs;
mod receive;
mod transmit;

use std::io;

use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::worker::{Context, Io, QueueWorker, WatchId};

pub use event::Event;
pub use receive::Receive;
pub use transmit::Transmit;

/// The worker of a queue of any role (virtio 1.2, 5.10.2).
pub enum VsockWorker {
    /// Host → guest.
    Receive(Box<Receive>),
    /// Guest → host.
    Transmit(Transmit),
    /// News of the device.
    Event(Event),
}

impl QueueWorker for VsockWorker {
    /// Bytes go by plain system calls that do not wait: nothing is ever pushed.
    type Tag = ();

    fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        match self {
            Self::Receive(queue) => queue.start(cx),
            Self::Transmit(queue) => queue.start(cx),
            Self::Event(queue) => queue.start(cx),
        }
    }

    fn turn(&mut self, cx: &mut Context<()>) -> usize {
        match self {
            Self::Receive(queue) => queue.turn(cx),
            Self::Transmit(queue) => queue.turn(cx),
            Self::Event(queue) => queue.turn(cx),
        }
    }

    // `turn` pops by itself.
    fn request(&mut self, cx: &mut Context<()>, token: Token, _: Chain) {
        cx.complete(token, 0);
    }

    fn completed(&mut self, _: &mut Context<()>, (): (), _: Io, _: io::Result<u32>) {}

    fn ready(&mut self, _: &mut Context<()>, watch: WatchId) {
        match self {
            Self::Receive(queue) => queue.ready(watch),
            Self::Transmit(queue) => queue.ready(watch),
            Self::Event(queue) => queue.ready(watch),
        }
    }

    fn wants_requests(&self) -> bool {
        match self {
            Self::Receive(queue) => queue.wants_buffers(),
            Self::Transmit(queue) => queue.wants_packets(),
            Self::Event(queue) => queue.wants_buffers(),
        }
    }

    fn stop(&mut self, cx: &mut Context<()>) {
        match self {
            Self::Receive(queue) => queue.stop(cx),
            Self::Transmit(queue) => queue.stop(cx),
            Self::Event(_) => {}
        }
    }
}

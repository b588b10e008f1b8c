//! Where frames come from and go to. Nothing here knows a virtqueue.

mod interface;
mod offloads;
mod open;
mod passt;
pub mod switch;
mod tap;

use std::io;
use std::os::fd::BorrowedFd;

use thiserror::Error;
use vhost_daemon::sys::Buffers;

use crate::header::HeaderLen;
use crate::sys::Scatter;

pub use interface::{InterfaceName, NetworkNamespace, NotANamespace, NotAnInterfaceName};
pub use offloads::Offloads;
pub use open::{TapError, TapSource};
pub use passt::{Passt, PasstError};
pub use tap::{Tap, TapFrames, TapSink};

/// Why a frame did not go, or none came.
#[derive(Debug, Error)]
pub enum PortError {
    /// No frame waits; or there is no room for one now.
    #[error("not now")]
    Again,
    /// The frame's header contradicts the frame.
    #[error("the frame's header does not fit the frame")]
    Malformed,
    /// The network's side is switched off.
    #[error("the interface is down")]
    Down,
    /// The network's side has vanished for good.
    #[error("the interface has been deleted")]
    Gone,
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

/// Gives frames for one receive queue, to the thread that made it.
pub trait FrameSource {
    /// Receives frames, each behind its header, in order and without waiting, one into each place at
    /// most. `each` learns the place's number and the length of both. Returns whether more may wait.
    ///
    /// # Errors
    /// When the port fails; what came before stands.
    fn receive(
        &mut self,
        places: &mut [Scatter<'_>],
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<bool, PortError>;

    /// Readable when frames wait.
    fn readable(&self) -> BorrowedFd<'_>;
}

/// Takes frames of one transmit queue, from the thread that made it.
pub trait FrameSink {
    /// Sends frames, each behind its header, in order and without waiting. `each` learns of every one
    /// what became of it; with an error it is lost.
    fn send(&mut self, frames: &[&Buffers], each: &mut dyn FnMut(usize, Result<(), PortError>));
}

/// A connection to a network, with a lane for each queue pair.
pub trait Port: Send + Sync + 'static {
    /// What serves a receive queue.
    type Source: FrameSource;
    /// What serves a transmit queue.
    type Sink: FrameSink;

    /// How many lanes there are, at least one.
    fn lanes(&self) -> usize;

    /// The source of one of them, for the calling thread.
    ///
    /// # Errors
    /// When there is no such lane, or the process is out of something.
    fn source(&self, lane: usize) -> io::Result<Self::Source>;

    /// The sink of one of them, for the calling thread.
    ///
    /// # Errors
    /// When there is no such lane, or the process is out of something.
    fn sink(&self, lane: usize) -> io::Result<Self::Sink>;

    /// All that frames may leave undone, in either direction.
    fn offloads(&self) -> Offloads;

    /// The network's largest packet, where it is known.
    fn mtu(&self) -> Option<u16>;

    /// Received frames leave no more than `offloads` undone from here on; headers in both
    /// directions are `header` long. Frames that wait under other terms are discarded.
    ///
    /// # Errors
    /// When the port cannot do that.
    fn agree(&self, offloads: Offloads, header: HeaderLen) -> io::Result<()>;

    /// Chooses whether received frames are spread over lane `index` too.
    ///
    /// # Errors
    /// When the port cannot do that.
    fn open_lane(&self, index: usize, open: bool) -> io::Result<()>;
}

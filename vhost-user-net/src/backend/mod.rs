//! Where frames come from and go to. Nothing here knows a virtqueue.

mod interface;
mod offloads;
mod open;
mod tap;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use thiserror::Error;
use vhost_daemon::sys::Buffers;

use crate::header::HeaderLen;
use crate::sys::Scatter;

pub use interface::{InterfaceName, NotAnInterfaceName};
pub use offloads::Offloads;
pub use open::{TapError, TapSource};
pub use tap::{Tap, TapQueue};

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

/// Gives frames for one receive queue.
pub trait FrameSource {
    /// Receives one frame behind its header, without waiting; returns the length of both.
    ///
    /// # Errors
    /// [`PortError::Again`] when no frame waits.
    fn receive(&self, into: &mut Scatter<'_>) -> Result<usize, PortError>;

    /// Readable when frames wait.
    fn readable(&self) -> BorrowedFd<'_>;

    /// Throws away the frames that wait.
    fn discard(&self);
}

/// Takes frames of one transmit queue.
pub trait FrameSink {
    /// Sends one frame behind its header, without waiting.
    ///
    /// # Errors
    /// See [`PortError`]; the frame is lost then.
    fn send(&self, frame: &Buffers) -> Result<(), PortError>;
}

/// A connection to a network, with a lane for each queue pair.
pub trait Port: Send + Sync + 'static {
    /// What serves one queue pair.
    type Lane: FrameSource + FrameSink + Send + Sync + 'static;

    /// How many lanes there are, at least one.
    fn lanes(&self) -> usize;

    /// One of them.
    fn lane(&self, index: usize) -> Option<Arc<Self::Lane>>;

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

//! Guest → network.

use std::sync::Arc;

use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::worker::Context;

use crate::backend::{FrameSink, Port, PortError};
use crate::header::{MAX_FRAME, MIN_FRAME};
use crate::metrics::{DropCause, FrameMetrics};
use crate::station::Station;

/// The worker of a transmit queue: each frame goes straight from guest memory to the port.
pub struct Transmit<P: Port> {
    pub(crate) station: Arc<Station<P>>,
    pub(crate) lane: Arc<P::Lane>,
    pub(crate) header_len: usize,
    pub(crate) metrics: FrameMetrics,
}

impl<P: Port> Transmit<P> {
    /// Sends one frame, or drops it, and gives its buffers back.
    pub(super) fn send(&self, cx: &mut Context<()>, token: Token, chain: &Chain) {
        match self.check(chain) {
            Ok(frame_len) => match self.lane.send(&chain.readable) {
                Ok(()) => {
                    self.metrics.passed(frame_len);
                    cx.queue().metrics().bytes_out.add(frame_len as u64);
                }
                Err(error) => self.lose(cx, &error),
            },
            Err((cause, fault)) => {
                self.metrics.dropped(cause);
                cx.guest_fault(&fault);
            }
        }
        cx.complete(token, 0);
    }

    /// The frame's length without its header. What the header says is the network's to check:
    /// the kernel copies it once and refuses one that contradicts the frame.
    fn check(&self, chain: &Chain) -> Result<usize, (DropCause, &'static str)> {
        if !chain.writable.is_empty() {
            let fault = "a transmit buffer that the device is to write";
            return Err((DropCause::Malformed, fault));
        }
        match chain.readable.len().checked_sub(self.header_len) {
            Some(len) if len > MAX_FRAME => Err((DropCause::TooLong, "a frame of over 64 KiB")),
            Some(len) if len >= MIN_FRAME => Ok(len),
            _ => Err((DropCause::Malformed, "a frame shorter than its headers")),
        }
    }

    fn lose(&self, cx: &mut Context<()>, error: &PortError) {
        self.metrics.dropped(error.into());
        match error {
            // Losing frames is what a full network does: no event.
            PortError::Again => {}
            PortError::Gone => self.station.lose_link(),
            PortError::Malformed => cx.guest_fault(error),
            PortError::Down | PortError::Io(_) => {
                cx.backend_error("frame dropped", &std::io::Error::other(error.to_string()));
            }
        }
    }
}

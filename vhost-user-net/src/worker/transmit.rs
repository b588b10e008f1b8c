//! Guest → network.

use std::sync::Arc;

use smallvec::SmallVec;
use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::sys::Buffers;
use vhost_daemon::worker::Context;

use crate::backend::{FrameSink, Port, PortError};
use crate::header::{MAX_FRAME, MIN_FRAME};
use crate::metrics::{DropCause, FrameMetrics};
use crate::station::Station;
use crate::sys::FrameBatch;

/// The worker of a transmit queue: frames go straight from guest memory to the port, many at a time.
pub struct Transmit<P: Port> {
    pub(crate) station: Arc<Station<P>>,
    pub(crate) sink: P::Sink,
    pub(crate) header_len: usize,
    pub(crate) metrics: FrameMetrics,
    /// Frames popped, to be sent with one call.
    pub(crate) batch: Vec<(Token, Buffers)>,
}

impl<P: Port> Transmit<P> {
    /// Sends what the guest made available, a batch at most; returns how many frames.
    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        let mut taken = 0;
        while taken < FrameBatch::MOST
            && let Some((token, chain)) = cx.pop()
        {
            taken += 1;
            self.take(cx, token, chain);
        }
        self.flush(cx);
        taken
    }

    /// Puts a frame into the batch, or drops it.
    fn take(&mut self, cx: &mut Context<()>, token: Token, chain: Chain) {
        match self.check(&chain) {
            Ok(()) => self.batch.push((token, chain.readable)),
            Err((cause, fault)) => {
                self.metrics.dropped(cause);
                cx.guest_fault(&fault);
                cx.complete(token, 0);
            }
        }
    }

    /// Sends the batch and gives its buffers back.
    fn flush(&mut self, cx: &mut Context<()>) {
        if self.batch.is_empty() {
            return;
        }
        let frames: SmallVec<[&Buffers; FrameBatch::MOST]> =
            self.batch.iter().map(|(_, frame)| frame).collect();
        let (station, metrics, header_len) = (&self.station, &self.metrics, self.header_len);
        self.sink
            .send(&frames, &mut |index, outcome| match outcome {
                Ok(()) => {
                    let len = frames.get(index).map_or(0, |frame| frame.len());
                    let len = len.saturating_sub(header_len);
                    metrics.passed(len);
                    cx.queue().metrics().bytes_out.add(len as u64);
                }
                Err(error) => lose(cx, station, metrics, &error),
            });
        drop(frames);
        for (token, _) in self.batch.drain(..) {
            cx.complete(token, 0);
        }
    }

    /// What the header says is the network's to check: the kernel copies it once and refuses one that
    /// contradicts the frame.
    fn check(&self, chain: &Chain) -> Result<(), (DropCause, &'static str)> {
        if !chain.writable.is_empty() {
            let fault = "a transmit buffer that the device is to write";
            return Err((DropCause::Malformed, fault));
        }
        match chain.readable.len().checked_sub(self.header_len) {
            Some(len) if len > MAX_FRAME => Err((DropCause::TooLong, "a frame of over 64 KiB")),
            Some(len) if len >= MIN_FRAME => Ok(()),
            _ => Err((DropCause::Malformed, "a frame shorter than its headers")),
        }
    }
}

fn lose<P: Port>(
    cx: &mut Context<()>,
    station: &Station<P>,
    metrics: &FrameMetrics,
    error: &PortError,
) {
    metrics.dropped(error.into());
    match error {
        // Losing frames is what a full network does: no event.
        PortError::Again => {}
        PortError::Gone => station.lose_link(),
        PortError::Malformed => cx.guest_fault(error),
        PortError::Down | PortError::Io(_) => {
            cx.backend_error("frame dropped", &std::io::Error::other(error.to_string()));
        }
    }
}

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

use super::throttle::Throttle;

/// The worker of a transmit queue: frames go straight from guest memory to the port, many at a time.
pub struct Transmit<P: Port> {
    pub(crate) station: Arc<Station<P>>,
    pub(crate) sink: P::Sink,
    pub(crate) header_len: usize,
    pub(crate) metrics: FrameMetrics,
    /// Frames popped, to be sent with one call.
    pub(crate) batch: Vec<(Token, Buffers)>,
    pub(crate) throttle: Throttle,
}

impl<P: Port> Transmit<P> {
    /// Sends what the guest made available, a batch at most; returns how many frames.
    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        let mut taken = 0;
        let most = self.throttle.allowance(cx, &self.station, FrameBatch::MOST);
        while taken < most
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
        let mut batch = std::mem::take(&mut self.batch);
        let frames: SmallVec<[&Buffers; FrameBatch::MOST]> =
            batch.iter().map(|(_, frame)| frame).collect();
        if self.station.is_unplugged() {
            let lost = frames.len();
            self.metrics.dropped_many(DropCause::Unplugged, lost);
        } else {
            let bytes: usize = frames.iter().map(|it| it.len() - self.header_len).sum();
            self.throttle.passed(&self.station, frames.len(), bytes);
            self.copy(&frames);
            self.send(cx, &frames);
        }
        drop(frames);
        for (token, _) in batch.drain(..) {
            cx.complete(token, 0);
        }
        self.batch = batch;
    }

    /// Gives copies to whoever wants them.
    fn copy(&self, frames: &[&Buffers]) {
        let taps = self.station.taps();
        if !taps.is_active() {
            return;
        }
        let mut copy = vec![0; taps.snap()];
        for frame in frames {
            let len = frame.len() - self.header_len;
            let most = len.min(copy.len());
            let count = frame.read_at(self.header_len, &mut copy[..most]);
            taps.passed(&copy[..count], len);
        }
    }

    fn send(&mut self, cx: &mut Context<()>, frames: &[&Buffers]) {
        let (station, metrics, header_len) = (&self.station, &self.metrics, self.header_len);
        let (mut passed, mut bytes) = (0, 0);
        self.sink.send(frames, &mut |index, outcome| match outcome {
            Ok(()) => {
                let len = frames.get(index).map_or(0, |frame| frame.len());
                passed += 1;
                bytes += len.saturating_sub(header_len);
            }
            Err(error) => lose(cx, station, metrics, &error),
        });
        metrics.passed(passed, bytes);
        cx.queue().metrics().bytes_out.add(bytes as u64);
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

//! What a data queue counts beyond what every queue does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vhost_daemon::metrics::{Counter, Metrics};

use crate::backend::PortError;

/// Why a frame was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// The guest's frame or header makes no sense.
    Malformed,
    /// Longer than any frame, or than the buffers the guest offers for one.
    TooLong,
    /// The guest offered too few buffers for too long.
    NoBuffers,
    /// The network had no room.
    Full,
    /// The interface is down.
    Down,
    /// The interface has been deleted.
    Gone,
    /// Whoever runs the daemon has taken the link down.
    Unplugged,
    /// The driver's filters do not let it through.
    Unwanted,
    /// The queue stopped with the frame half delivered.
    Stopped,
    /// Any other error.
    Error,
}

impl DropCause {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Malformed, "malformed"),
        (Self::TooLong, "too_long"),
        (Self::NoBuffers, "no_buffers"),
        (Self::Full, "full"),
        (Self::Down, "down"),
        (Self::Gone, "gone"),
        (Self::Unplugged, "unplugged"),
        (Self::Unwanted, "unwanted"),
        (Self::Stopped, "stopped"),
        (Self::Error, "error"),
    ];
}

impl From<&PortError> for DropCause {
    fn from(error: &PortError) -> Self {
        match error {
            PortError::Again => Self::Full,
            PortError::Malformed => Self::Malformed,
            PortError::Down => Self::Down,
            PortError::Gone => Self::Gone,
            PortError::Io(_) => Self::Error,
        }
    }
}

/// Which way frames go, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guest.
    Receive,
    /// From the guest.
    Transmit,
}

impl Direction {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Transmit => "transmit",
        }
    }
}

/// The counters of one data queue.
pub struct FrameMetrics {
    frames: Arc<Counter>,
    bytes: Arc<Counter>,
    drops: [Arc<Counter>; DropCause::ALL.len()],
}

impl FrameMetrics {
    /// Those of queue `index`; the same ones at each call.
    pub fn new(metrics: &Metrics, index: usize, direction: Direction) -> Self {
        let direction = direction.name();
        let labels = format!("queue=\"{index}\",direction=\"{direction}\"");
        let counter = |name, help| metrics.counter(name, help, &labels);
        let drop = |(_, cause): (DropCause, &str)| {
            let labels = format!("{labels},cause=\"{cause}\"");
            metrics.counter("net_drops_total", "Frames lost, by cause", &labels)
        };
        Self {
            frames: counter("net_frames_total", "Frames passed on"),
            bytes: counter("net_bytes_total", "Bytes of the frames passed on"),
            drops: DropCause::ALL.map(drop),
        }
    }

    /// Frames of `bytes` altogether, without their headers, were passed on.
    pub fn passed(&self, frames: usize, bytes: usize) {
        self.frames.add(frames as u64);
        self.bytes.add(bytes as u64);
    }

    /// A frame was lost.
    pub fn dropped(&self, cause: DropCause) {
        self.dropped_many(cause, 1);
    }

    /// So many frames were lost.
    pub fn dropped_many(&self, cause: DropCause, count: usize) {
        let position = DropCause::ALL.iter().position(|(known, _)| *known == cause);
        if let Some(counter) = position.and_then(|position| self.drops.get(position)) {
            counter.add(count as u64);
        }
    }
}

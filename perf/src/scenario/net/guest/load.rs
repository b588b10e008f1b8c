//! What a guest does.

use serde::{Deserialize, Serialize};

/// A load, seen from the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestLoad {
    /// One TCP stream to the host.
    TcpOut,
    /// One TCP stream from the host.
    TcpIn,
    /// Answers to the host's pings, 500 a second.
    Ping,
}

impl GuestLoad {
    /// All that a run measures.
    pub const ALL: [Self; 3] = [Self::TcpOut, Self::TcpIn, Self::Ping];

    /// A name as in `tcp-out`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpOut => "tcp-out",
            Self::TcpIn => "tcp-in",
            Self::Ping => "ping",
        }
    }
}

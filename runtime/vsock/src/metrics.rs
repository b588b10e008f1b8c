//! What is counted beyond what every queue counts. Each counter has one writer: the queue's thread that
//! it is named for.

use std::sync::Arc;

use vhost_daemon::metrics::{Counter, Metrics};

use crate::switchboard::Side;

/// The counters of one data queue.
pub struct Counts {
    /// Connections begun by this queue's side: programs of the host's, or the guest's.
    pub begun: Arc<Counter>,
    /// Of these, those that nobody took.
    pub refused: Arc<Counter>,
    /// Of these, those turned away because there were as many as may be.
    pub turned_away: Arc<Counter>,
    /// Packets with bytes.
    pub packets: Arc<Counter>,
    /// Resets sent to the guest or come from it.
    pub resets: Arc<Counter>,
    /// Packets that tell of room and nothing else.
    pub credit_updates: Arc<Counter>,
    /// Times that bytes waited: for the guest's credit, or for room in a program's socket.
    pub held_up: Arc<Counter>,
}

impl Counts {
    /// Those of one queue; the same ones at each call.
    pub fn new(metrics: &Metrics, side: Side) -> Self {
        let labels = match side {
            Side::Receive => "direction=\"receive\"",
            Side::Transmit => "direction=\"transmit\"",
        };
        let counter = |name, help| metrics.counter(name, help, labels);
        Self {
            begun: counter(
                "vsock_begun_total",
                "Connections asked for: by programs (receive), by the guest (transmit)",
            ),
            refused: counter("vsock_refused_total", "Connections that nobody took"),
            turned_away: counter("vsock_turned_away_total", "Connections beyond the limit"),
            packets: counter("vsock_packets_total", "Packets with bytes"),
            resets: counter("vsock_resets_total", "Resets sent, or received"),
            credit_updates: counter("vsock_credit_updates_total", "Packets about room only"),
            held_up: counter(
                "vsock_held_up_total",
                "Waits for the guest's credit (receive), for a program (transmit)",
            ),
        }
    }
}

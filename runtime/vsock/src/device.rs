//! The virtio socket device (virtio 1.2, 5.10) as the session runs it.

use std::io;
use std::sync::Arc;

use vhost_daemon::Device;
use vhost_daemon::metrics::Metrics;

use crate::metrics::Counts;
use crate::switchboard::{Side, Switchboard};
use crate::worker::{Event, Receive, Transmit, VsockWorker};

/// `VIRTIO_VSOCK_F_STREAM` (virtio 1.2, 5.10.3): stream sockets, and no others.
const STREAM: u64 = 1;

/// A socket device.
pub struct VsockDevice {
    switchboard: Arc<Switchboard>,
    metrics: Arc<Metrics>,
}

impl VsockDevice {
    /// For the programs of `switchboard`.
    pub fn new(switchboard: Switchboard, metrics: Arc<Metrics>) -> Self {
        Self {
            switchboard: Arc::new(switchboard),
            metrics,
        }
    }
}

impl Device for VsockDevice {
    type Worker = VsockWorker;

    /// Receive, transmit, events (virtio 1.2, 5.10.2). QEMU keeps the last one to itself.
    fn queues(&self) -> usize {
        3
    }

    fn features(&self) -> u64 {
        STREAM
    }

    /// `struct virtio_vsock_config` (virtio 1.2, 5.10.4).
    fn config(&self) -> Vec<u8> {
        self.switchboard.line().cid.to_le_bytes().to_vec()
    }

    /// Without its guest, no connection is of use: programs see the end.
    fn disconnected(&self) {
        self.switchboard.clear();
    }

    fn worker(&self, index: usize, _features: u64) -> io::Result<VsockWorker> {
        let switchboard = self.switchboard.clone();
        let counts = |side| Counts::new(&self.metrics, side);
        Ok(match index {
            0 => {
                let worker = Receive::new(switchboard, counts(Side::Receive));
                VsockWorker::Receive(Box::new(worker))
            }
            1 => VsockWorker::Transmit(Transmit::new(switchboard, counts(Side::Transmit))),
            _ => VsockWorker::Event(Event::new(switchboard)),
        })
    }
}

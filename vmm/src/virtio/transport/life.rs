//! From the driver's first status to its reset.

use std::io;

use super::Transport;
use crate::virtio::Setup;
use crate::virtio::common::{Common, status};
use crate::virtio::queue::Queue;

impl Transport {
    pub(super) fn status(&mut self) -> u8 {
        self.finish_reset();
        let needs_reset = if self.signals.is_reset_needed() {
            status::NEEDS_RESET
        } else {
            0
        };
        // Never zero before the reset is over, whatever the driver wrote last.
        let resetting = if self.resetting {
            status::ACKNOWLEDGE
        } else {
            0
        };
        self.common.status | needs_reset | resetting
    }

    pub(super) fn set_status(&mut self, wanted: u8) {
        self.finish_reset();
        if self.resetting {
            return;
        }
        if wanted == 0 {
            self.begin_reset();
            return;
        }
        let agreed = self.common.agreed(wanted);
        let starts = agreed & status::DRIVER_OK != 0 && !self.started;
        self.common.status = agreed;
        if starts && let Err(error) = self.start() {
            tracing::warn!(%error, "a device cannot be started");
            self.signals.needs_reset();
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let enabled = self.queues.iter().enumerate().filter(|(_, it)| it.enabled);
        let queues = enabled
            .map(|(index, queue)| queue.setup(index, self.call(queue.vector)?))
            .collect::<io::Result<Vec<_>>>()?;
        let features = self.common.chosen;
        self.device().start(Setup { features, queues });
        self.started = true;
        self.connect_kicks();
        Ok(())
    }

    /// Nobody waits: the driver polls the status until it is zero (virtio 1.2, 4.1.4.3.1).
    pub(super) fn begin_reset(&mut self) {
        self.resetting = true;
        if self.started {
            self.device().reset();
        }
        self.finish_reset();
    }

    pub(super) fn finish_reset(&mut self) {
        if !self.resetting || (self.started && !self.device().is_reset()) {
            return;
        }
        (self.started, self.resetting) = (false, false);
        self.disconnect_kicks();
        self.queues.iter_mut().for_each(Queue::reset);
        self.common = Common::new(self.common.offered);
        self.signals.clear();
        self.msix.forget_pending();
    }
}

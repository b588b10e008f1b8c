//! A driver's kicks: past us if the kernel can, else through us.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::Transport;
use crate::pci::Wiring;
use crate::virtio::common::status;
use crate::virtio::layout;
use crate::virtio::queue::Queue;

impl Transport {
    /// A kick that came to us: the kernel has no event at its address, or the driver does not write there.
    pub(super) fn notify(&self, offset: usize) {
        self.accesses.kicks.fetch_add(1, Ordering::Relaxed);
        let index = offset / 4;
        if let Some(queue) = self.queues.get(index) {
            // Full only when billions were not taken: one is pending then.
            let _ = queue.kick.write(1);
        }
    }

    /// Kicks go straight to the device while its driver runs and its addresses are where they are.
    pub(super) fn connect_kicks(&mut self) {
        let runs = self.common.status & status::DRIVER_OK != 0;
        let bar = self.config.decoded().filter(|_| runs);
        for (index, queue) in (0_u64..).zip(&mut self.queues) {
            let step = u64::from(layout::NOTIFY_MULTIPLIER);
            let place = |bar: &Range<u64>| bar.start + layout::NOTIFY + index * step;
            let wanted = bar.as_ref().filter(|_| queue.enabled).map(place);
            connect_kick(queue, &*self.wiring, wanted);
        }
    }

    pub(super) fn disconnect_kicks(&mut self) {
        for queue in &mut self.queues {
            connect_kick(queue, &*self.wiring, None);
        }
    }
}

/// Where another device is, the kernel refuses; then kicks come to us, and pass.
fn connect_kick(queue: &mut Queue, wiring: &dyn Wiring, wanted: Option<u64>) {
    if queue.kick_at == wanted {
        return;
    }
    if let Some(address) = queue.kick_at.take()
        && let Err(error) = wiring.disconnect_kick(&queue.kick, address)
    {
        tracing::debug!(%error, address, "a kick cannot be disconnected");
    }
    if let Some(address) = wanted {
        match wiring.connect_kick(&queue.kick, address) {
            Ok(()) => queue.kick_at = Some(address),
            Err(error) => tracing::debug!(%error, address, "a kick takes the long way"),
        }
    }
}

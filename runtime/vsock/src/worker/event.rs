//! The device → the guest: connections were lost.

use std::io;
use std::sync::Arc;

use vhost_daemon::worker::{Context, WatchId};

use crate::switchboard::Switchboard;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, the `id` of a `struct virtio_vsock_event` (virtio 1.2,
/// 5.10.6.7).
const TRANSPORT_RESET: [u8; 4] = 0_u32.to_le_bytes();

/// The worker of the event queue.
pub struct Event {
    switchboard: Arc<Switchboard>,
    due: Option<WatchId>,
}

impl Event {
    /// For the connections of `switchboard`.
    pub fn new(switchboard: Arc<Switchboard>) -> Self {
        Self {
            switchboard,
            due: None,
        }
    }

    pub(super) fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        self.due = Some(cx.watch(&self.switchboard.reset.wakeup)?);
        Ok(())
    }

    pub(super) fn ready(&mut self, watch: WatchId) {
        if self.due == Some(watch) {
            self.switchboard.reset.wakeup.clear();
        }
    }

    /// Buffers are of use only for an event.
    pub(super) fn wants_buffers(&self) -> bool {
        self.switchboard.reset.is_due()
    }

    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        let mut taken = 0;
        while self.switchboard.reset.is_due()
            && taken < Context::<()>::BATCH
            && let Some((token, chain)) = cx.pop()
        {
            taken += 1;
            let len = TRANSPORT_RESET.len();
            if chain.writable.len() < len {
                cx.guest_fault(&"a buffer too short for an event");
                cx.complete(token, 0);
                continue;
            }
            chain.writable.write_at(0, &TRANSPORT_RESET);
            cx.complete(token, 4);
            self.switchboard.reset.done();
            tracing::info!("the guest is told that its connections are lost");
        }
        taken
    }
}

//! What a device tells its driver besides the queues: its configuration changed, it needs a reset.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

/// ISR status: configuration changed (virtio 1.2, 4.1.4.5).
const ISR_CONFIG: u8 = 1 << 1;

/// Shared by the transport, which the driver asks, and the device's thread, which knows.
#[derive(Debug, Default)]
pub struct Signals {
    generation: AtomicU8,
    isr: AtomicU8,
    needs_reset: AtomicBool,
    event: Mutex<Option<EventFd>>,
}

impl Signals {
    /// The driver shall read the configuration again.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.interrupt();
    }

    /// The device cannot go on before the driver resets it (virtio 1.2, 2.1.2).
    pub fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.interrupt();
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Reading clears it.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    pub(super) fn isr(&self) -> u8 {
        self.isr.load(Ordering::Acquire)
    }

    pub(super) fn restore(&self, generation: u8, isr: u8, needs_reset: bool) {
        self.generation.store(generation, Ordering::Release);
        self.isr.store(isr, Ordering::Release);
        self.needs_reset.store(needs_reset, Ordering::Release);
    }

    /// The event of the configuration's vector.
    pub(super) fn set_event(&self, event: Option<EventFd>) {
        *self.event.lock().unwrap_or_else(PoisonError::into_inner) = event;
    }

    pub(super) fn clear(&self) {
        self.needs_reset.store(false, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.set_event(None);
    }

    fn interrupt(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        let event = self.event.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = &*event {
            // Full only when billions were not taken: one is pending then.
            let _ = event.write(1);
        }
    }
}

//! A virtio device as a PCI function.

mod kicks;
mod life;
mod saved;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::common::{self, Common, field, half_word, status};
use super::layout::{self, access};
use super::queue::{NO_VECTOR, Queue};
use super::{Device, SharedDevice, Signals};
use crate::pci::{ConfigSpace, Function, Identity, Msix, Wiring};

pub use saved::{Positions, TransportState};

/// Red Hat's vendor number for virtio, and the first device number (virtio 1.2, 4.1.2).
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;

/// Why a device cannot be put on the bus.
#[derive(Debug, Error)]
pub enum TransportError {
    /// More queues than there are vectors.
    #[error("a device has {0} queues, {most} are possible", most = layout::MOST_QUEUES)]
    Queues(usize),
    /// Fewer interrupt numbers than vectors.
    #[error("a device needs {needed} interrupt numbers and got {given}")]
    Interrupts {
        /// One for each queue and one for the configuration.
        needed: usize,
        /// How many there are.
        given: usize,
    },
    /// No descriptors, or no room in configuration space.
    #[error("a device cannot be put on the PCI bus")]
    Setup(#[from] io::Error),
}

/// How often processors came to a function: each time an exit.
#[derive(Debug, Default)]
pub struct Accesses {
    /// To its registers, or with a kick.
    pub accesses: AtomicU64,
    /// With a kick.
    pub kicks: AtomicU64,
}

/// The function. It owns what the driver wrote; the device it points to outlives it.
pub struct Transport {
    config: ConfigSpace,
    access: usize,
    msix: Msix,
    wiring: Arc<dyn Wiring>,
    device: SharedDevice,
    signals: Arc<Signals>,
    common: Common,
    queues: Vec<Queue>,
    accesses: Arc<Accesses>,
    /// The device serves queues, or did and has not finished its reset.
    started: bool,
    /// The driver asked for a reset, which the device has not finished.
    resetting: bool,
}

impl Transport {
    /// Puts a device that is reset behind a function at `address`, with one interrupt number for the
    /// configuration and each queue.
    ///
    /// # Errors
    /// When it has too many queues, or there are no descriptors.
    pub fn new(
        device: SharedDevice,
        wiring: Arc<dyn Wiring>,
        address: u32,
        interrupts: &[u32],
    ) -> Result<Self, TransportError> {
        let signals = Arc::new(Signals::default());
        let mut served = device.lock().unwrap_or_else(PoisonError::into_inner);
        served.attach(signals.clone());
        let sizes = served.queue_sizes();
        check(&sizes, interrupts)?;
        let mut config = ConfigSpace::new(identity(&*served), Some(layout::bar(address)));
        let msix = Msix::new(
            wiring.clone(),
            interrupts.iter().copied().take(sizes.len() + 1),
            &mut config,
            (layout::MSIX_TABLE, layout::MSIX_PENDING),
        )?;
        let config_len = u32::try_from(served.config().len()).map_err(io::Error::other)?;
        let access = layout::add_capabilities(&mut config, config_len)
            .ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
        let queues = sizes.into_iter().map(Queue::new);
        let queues = queues.collect::<io::Result<Vec<_>>>()?;
        let common = Common::new(served.features());
        drop(served);
        Ok(Self {
            config,
            access,
            msix,
            wiring,
            device,
            signals,
            common,
            queues,
            accesses: Arc::default(),
            started: false,
            resetting: false,
        })
    }

    /// What is counted.
    #[must_use]
    pub fn accesses(&self) -> Arc<Accesses> {
        self.accesses.clone()
    }

    fn device(&self) -> MutexGuard<'_, dyn Device + 'static> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vector's event; one that nobody hears for a queue without a vector.
    fn call(&self, vector: u16) -> io::Result<EventFd> {
        match self.msix.event(vector) {
            Some(event) => event.try_clone(),
            None => EventFd::new(EFD_NONBLOCK),
        }
    }

    /// A vector that is there, else none, which the driver reads back (virtio 1.2, 4.1.5.1.2.1).
    fn vector(&self, wanted: u16) -> u16 {
        if usize::from(wanted) < self.msix.count() {
            wanted
        } else {
            NO_VECTOR
        }
    }

    fn read_common(&mut self, offset: usize, data: &mut [u8]) {
        let status = self.status();
        let image = self
            .common
            .image(&self.queues, status, self.signals.generation());
        copy(&image, offset, data);
    }

    fn write_common(&mut self, offset: usize, data: &[u8]) {
        if self.common.write(offset, data) {
            return;
        }
        match (offset, data, half_word(data)) {
            (field::STATUS, [wanted], _) => self.set_status(*wanted),
            (field::CONFIG_VECTOR, _, Some(vector)) => self.set_config_vector(vector),
            (field::QUEUE_SELECT, _, Some(select)) => self.common.queue_select = select,
            (field::QUEUE_VECTOR, _, Some(vector)) => self.set_queue_vector(vector),
            _ => {
                let select = usize::from(self.common.queue_select);
                if let Some(queue) = self.queues.get_mut(select) {
                    common::write_queue(queue, offset, data);
                }
            }
        }
    }

    fn set_config_vector(&mut self, vector: u16) {
        self.common.config_vector = self.vector(vector);
        let event = self.msix.event(self.common.config_vector);
        let event = event.and_then(|event| event.try_clone().ok());
        self.signals.set_event(event);
    }

    fn set_queue_vector(&mut self, vector: u16) {
        let vector = self.vector(vector);
        let select = usize::from(self.common.queue_select);
        let Some(queue) = self.queues.get_mut(select) else {
            return;
        };
        let changed = queue.vector != vector;
        queue.vector = vector;
        let runs = queue.enabled && self.common.status & status::DRIVER_OK != 0;
        if changed
            && runs
            && let Ok(call) = self.call(vector)
        {
            self.device().set_call(select, call);
        }
    }

    /// The access that configuration space asks for: offset, and how many bytes.
    fn accessed(&self) -> Option<(u64, usize)> {
        let at = self.access;
        let length = self.config.u32_at(at + access::LENGTH);
        let is_bar0 = self.config.u16_at(at + access::BAR) & 0xff == 0;
        let length = usize::try_from(length).ok()?;
        let offset = u64::from(self.config.u32_at(at + access::OFFSET));
        let fits = offset + length as u64 <= u64::from(layout::BAR_SIZE);
        (is_bar0 && matches!(length, 1 | 2 | 4) && fits).then_some((offset, length))
    }

    fn is_access_data(&self, offset: usize, len: usize) -> bool {
        let data = self.access + access::DATA;
        offset < data + 4 && data < offset.saturating_add(len)
    }
}

impl Function for Transport {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        if self.is_access_data(offset, data.len())
            && let Some((at, length)) = self.accessed()
        {
            let mut bytes = [0; 4];
            self.read_memory(at, &mut bytes[..length]);
            self.config.put(self.access + access::DATA, &bytes);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.msix.config_written(&self.config);
        if self.is_access_data(offset, data.len())
            && let Some((at, length)) = self.accessed()
        {
            let bytes = self.config.u32_at(self.access + access::DATA).to_le_bytes();
            self.write_memory(at, &bytes[..length]);
        }
        self.connect_kicks();
    }

    fn decoded(&self) -> Option<Range<u64>> {
        self.config.decoded()
    }

    fn read_memory(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.accesses.accesses.fetch_add(1, Ordering::Relaxed);
        let (place, within) = split(offset);
        match place {
            layout::COMMON => self.read_common(within, data),
            layout::ISR => {
                if let (0, [isr, ..]) = (within, data) {
                    *isr = self.signals.take_isr();
                }
            }
            layout::DEVICE => copy(&self.device().config(), within, data),
            _ if place == u64::from(layout::MSIX_TABLE) => self.msix.read_table(within, data),
            _ if place == u64::from(layout::MSIX_PENDING) => self.msix.read_pending(within, data),
            _ => {}
        }
    }

    fn write_memory(&mut self, offset: u64, data: &[u8]) {
        self.accesses.accesses.fetch_add(1, Ordering::Relaxed);
        let (place, within) = split(offset);
        match place {
            layout::COMMON => self.write_common(within, data),
            layout::DEVICE => self.device().write_config(within, data),
            layout::NOTIFY => self.notify(within),
            _ if place == u64::from(layout::MSIX_TABLE) => self.msix.write_table(within, data),
            _ => {}
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.disconnect_kicks();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("common", &self.common)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

fn check(sizes: &[u16], interrupts: &[u32]) -> Result<(), TransportError> {
    if sizes.len() > layout::MOST_QUEUES {
        return Err(TransportError::Queues(sizes.len()));
    }
    let (needed, given) = (sizes.len() + 1, interrupts.len());
    if given < needed {
        return Err(TransportError::Interrupts { needed, given });
    }
    Ok(())
}

fn identity(device: &dyn Device) -> Identity {
    let kind = device.kind();
    Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + kind as u16,
        revision: 1,
        class: kind.class(),
        subsystem: (VENDOR, FIRST_DEVICE + kind as u16),
    }
}

/// Which structure, and where in it.
fn split(offset: u64) -> (u64, usize) {
    let within = offset % layout::PLACE;
    (offset - within, usize::try_from(within).unwrap_or(0))
}

fn copy(source: &[u8], offset: usize, data: &mut [u8]) {
    for (place, byte) in data.iter_mut().zip(source.iter().skip(offset)) {
        *place = *byte;
    }
}

//! MSI-X: a table of messages that the guest fills in, one for each vector (PCI local bus specification
//! 3.0, 6.8.2).
//!
//! Each vector is an event. While the guest lets it through, the event is connected to an interrupt in
//! the kernel; while it is masked, the event keeps counting and shows as pending.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{ConfigSpace, Wiring};
use crate::kvm::{KvmError, Message};

/// Capability number.
const CAPABILITY: u8 = 0x11;
/// Message control: enable, and mask of all vectors.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
/// Vector control: mask.
const MASKED: u32 = 1;
/// Bytes of an entry.
const ENTRY: usize = 16;

/// One vector's event.
#[derive(Debug)]
pub struct Vector {
    event: EventFd,
    number: u32,
    entry: Entry,
    connected: bool,
}

/// As the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

impl Entry {
    const RESET: Self = Self {
        address: 0,
        data: 0,
        control: MASKED,
    };

    fn bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.data.to_le_bytes());
        bytes[12..].copy_from_slice(&self.control.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; ENTRY]) -> Self {
        let [a, b, c, d, e, f, g, h, data @ .., i, j, k, l] = bytes;
        Self {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            data: u32::from_le_bytes(data),
            control: u32::from_le_bytes([i, j, k, l]) & MASKED,
        }
    }
}

/// What a snapshot keeps of a function's vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MsixState {
    entries: Vec<Entry>,
    pending: Vec<bool>,
}

impl MsixState {
    /// How many vectors there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

/// A function's vectors.
pub struct Msix {
    wiring: Arc<dyn Wiring>,
    vectors: Vec<Vector>,
    control: u16,
    /// Where the capability is in configuration space.
    capability: usize,
}

impl Msix {
    /// Vectors with the interrupt numbers `numbers`, and their capability. The table lies at `table` in
    /// base address 0, the pending bits at `pending`.
    ///
    /// # Errors
    /// When there are no descriptors for events, or the configuration space is full.
    pub fn new(
        wiring: Arc<dyn Wiring>,
        numbers: impl IntoIterator<Item = u32>,
        config: &mut ConfigSpace,
        (table, pending): (u32, u32),
    ) -> io::Result<Self> {
        let vectors = numbers
            .into_iter()
            .map(|number| {
                Ok(Vector {
                    event: EventFd::new(EFD_NONBLOCK)?,
                    number,
                    entry: Entry::RESET,
                    connected: false,
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let last = u16::try_from(vectors.len().saturating_sub(1)).map_err(io::Error::other)?;
        let mut body = last.to_le_bytes().to_vec();
        body.extend(table.to_le_bytes());
        body.extend(pending.to_le_bytes());
        let capability = config
            .add_capability(CAPABILITY, &body, &(ENABLE | MASK_ALL).to_le_bytes())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(Self {
            wiring,
            vectors,
            control: 0,
            capability,
        })
    }

    /// How many vectors there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.vectors.len()
    }

    /// A vector's event: signalling it interrupts the guest.
    #[must_use]
    pub fn event(&self, vector: u16) -> Option<&EventFd> {
        let vector = self.vectors.get(usize::from(vector))?;
        Some(&vector.event)
    }

    /// To be called after each write to configuration space.
    pub fn config_written(&mut self, config: &ConfigSpace) {
        let control = config.u16_at(self.capability + 2) & (ENABLE | MASK_ALL);
        if control != self.control {
            self.control = control;
            for index in 0..self.vectors.len() {
                self.update(index);
            }
        }
    }

    /// Fills `data` from the table.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        if let Some((index, within)) = self.place(offset, data.len()) {
            let bytes = self.vectors[index].entry.bytes();
            data.copy_from_slice(&bytes[within..within + data.len()]);
        }
    }

    /// Writes to the table.
    pub fn write_table(&mut self, offset: usize, data: &[u8]) {
        let Some((index, within)) = self.place(offset, data.len()) else {
            return;
        };
        let vector = &mut self.vectors[index];
        let mut bytes = vector.entry.bytes();
        bytes[within..within + data.len()].copy_from_slice(data);
        vector.entry = Entry::from_bytes(bytes);
        self.update(index);
    }

    /// Fills `data` from the pending bits.
    pub fn read_pending(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (at, byte) in (offset..).zip(data) {
            let first = at.saturating_mul(8);
            for (bit, vector) in self.vectors.iter().skip(first).take(8).enumerate() {
                *byte |= u8::from(vector.is_pending()) << bit;
            }
        }
    }

    /// Forgets interrupts that were not delivered, when the device was reset.
    pub fn forget_pending(&self) {
        for vector in &self.vectors {
            // Nothing to forget is an error.
            let _ = vector.event.read();
        }
    }

    /// The table, and interrupts that were not delivered.
    #[must_use]
    pub fn save(&self) -> MsixState {
        MsixState {
            entries: self.vectors.iter().map(|vector| vector.entry).collect(),
            pending: self.vectors.iter().map(Vector::is_pending).collect(),
        }
    }

    /// Sets them, and connects what is open by the restored configuration space. False where there are
    /// not as many vectors.
    #[must_use]
    pub fn restore(&mut self, state: &MsixState, config: &ConfigSpace) -> bool {
        let count = self.vectors.len();
        if state.entries.len() != count || state.pending.len() != count {
            return false;
        }
        for (vector, (entry, pending)) in self
            .vectors
            .iter_mut()
            .zip(state.entries.iter().zip(&state.pending))
        {
            vector.entry = *entry;
            if *pending {
                let _ = vector.event.write(1);
            }
        }
        self.control = config.u16_at(self.capability + 2) & (ENABLE | MASK_ALL);
        for index in 0..count {
            self.update(index);
        }
        true
    }

    /// Table entry and offset in it, of an aligned access to four or eight bytes.
    fn place(&self, offset: usize, len: usize) -> Option<(usize, usize)> {
        let is_whole = matches!(len, 4 | 8) && offset.is_multiple_of(len);
        let index = offset / ENTRY;
        (is_whole && index < self.vectors.len()).then_some((index, offset % ENTRY))
    }

    fn update(&mut self, index: usize) {
        let open = self.control & (ENABLE | MASK_ALL) == ENABLE;
        let vector = &mut self.vectors[index];
        if let Err(error) = vector.connect(&*self.wiring, open) {
            // Causes: the guest's message is none, or the kernel's table is full. Others are not hurt.
            tracing::debug!(%error, number = vector.number, "an interrupt stays off");
        }
    }
}

impl Vector {
    fn connect(&mut self, wiring: &dyn Wiring, open: bool) -> Result<(), KvmError> {
        let wanted = open && self.entry.control & MASKED == 0;
        if !wanted {
            if std::mem::take(&mut self.connected) {
                wiring.disconnect_interrupt(&self.event, self.number)?;
            }
            return Ok(());
        }
        let message = Message {
            address: self.entry.address,
            data: self.entry.data,
        };
        wiring.route_message(self.number, Some(message))?;
        if !self.connected {
            wiring.connect_interrupt(&self.event, self.number)?;
            self.connected = true;
        }
        Ok(())
    }

    fn is_pending(&self) -> bool {
        // Connected, the kernel takes what is counted. Masked, nobody but us reads: what is read is
        // put back, and nothing that is added meanwhile is lost.
        !self.connected
            && self
                .event
                .read()
                .is_ok_and(|count| self.event.write(count).is_ok())
    }
}

impl Drop for Msix {
    fn drop(&mut self) {
        for vector in &mut self.vectors {
            let _ = vector.connect(&*self.wiring, false);
            let _ = self.wiring.route_message(vector.number, None);
        }
    }
}

impl std::fmt::Debug for Msix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Msix")
            .field("vectors", &self.vectors)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

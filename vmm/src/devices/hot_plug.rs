//! Registers that tell the guest's ACPI code which devices on the PCI bus came, and which shall go: a bit
//! for each place.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::layout::port;

/// What the guest has not seen yet.
#[derive(Debug, Default)]
pub struct HotPlug {
    came: AtomicU32,
    shall_go: AtomicU32,
}

impl HotPlug {
    /// There is a device in `place`.
    pub fn came(&self, place: usize) {
        self.came.fetch_or(bit(place), Ordering::AcqRel);
    }

    /// The guest shall let go of the device in `place`.
    pub fn shall_go(&self, place: usize) {
        self.shall_go.fetch_or(bit(place), Ordering::AcqRel);
    }

    /// What the guest has not seen: who came, and who shall go.
    #[must_use]
    pub fn unseen(&self) -> (u32, u32) {
        let came = self.came.load(Ordering::Acquire);
        (came, self.shall_go.load(Ordering::Acquire))
    }

    /// Sets it.
    pub fn restore(&self, (came, shall_go): (u32, u32)) {
        self.came.store(came, Ordering::Release);
        self.shall_go.store(shall_go, Ordering::Release);
    }

    /// Fills `data` from a port. Reading a whole register clears it.
    pub fn read(&self, number: u16, data: &mut [u8]) {
        data.fill(0);
        let register = match number {
            port::PCI_CAME => &self.came,
            port::PCI_SHALL_GO => &self.shall_go,
            _ => return,
        };
        if data.len() == 4 {
            let places = register.swap(0, Ordering::AcqRel);
            data.copy_from_slice(&places.to_le_bytes());
        }
    }
}

fn bit(place: usize) -> u32 {
    let shift = u32::try_from(place).unwrap_or(u32::MAX);
    1_u32.checked_shl(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_is_seen_once_and_as_a_whole() {
        let hot_plug = HotPlug::default();
        hot_plug.came(1);
        hot_plug.came(31);
        hot_plug.came(32);
        hot_plug.shall_go(2);
        let read = |number| {
            let mut data = [0xff; 4];
            hot_plug.read(number, &mut data);
            u32::from_le_bytes(data)
        };
        let mut byte = [0xff];
        hot_plug.read(port::PCI_CAME, &mut byte);
        assert_eq!(byte, [0]);
        assert_eq!([read(0x608), read(0x608)], [1 << 31 | 2, 0]);
        assert_eq!([read(0x60c), read(0x60c), read(0x610)], [4, 0, 0]);
    }
}

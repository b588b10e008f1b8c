use super::super::testing::Remembered;
use super::super::{Bar, Identity};
use super::*;

const FIRST: u32 = 24;

struct Device {
    config: ConfigSpace,
    msix: Msix,
    wiring: Arc<Remembered>,
}

fn device(vectors: u32) -> Device {
    let identity = Identity {
        vendor: 1,
        device: 1,
        revision: 0,
        class: [0; 3],
        subsystem: (0, 0),
    };
    let bar = Bar {
        address: 0,
        size: 0x8000,
    };
    let mut config = ConfigSpace::new(identity, Some(bar));
    let wiring = Arc::new(Remembered::default());
    let numbers = FIRST..FIRST + vectors;
    let msix = Msix::new(wiring.clone(), numbers, &mut config, (0x4000, 0x5000)).unwrap();
    Device {
        config,
        msix,
        wiring,
    }
}

impl Device {
    fn control(&mut self, value: u16) {
        let at = self.msix.capability + 2;
        self.config.write(at, &value.to_le_bytes());
        self.msix.config_written(&self.config);
    }

    fn entry(&mut self, index: usize, address: u64, data: u32, control: u32) {
        let at = index * ENTRY;
        self.msix.write_table(at, &address.to_le_bytes());
        self.msix.write_table(at + 8, &data.to_le_bytes());
        self.msix.write_table(at + 12, &control.to_le_bytes());
    }

    fn connected(&self) -> Vec<u32> {
        self.wiring
            .interrupts
            .lock()
            .unwrap()
            .keys()
            .copied()
            .collect()
    }

    fn pending(&self) -> u8 {
        let mut byte = [0];
        self.msix.read_pending(0, &mut byte);
        byte[0]
    }
}

#[test]
fn the_capability_tells_where_the_table_is() {
    let device = device(3);
    let at = device.msix.capability;
    assert_eq!(device.config.u32_at(at) & 0xffff_00ff, 0x0002_0011);
    assert_eq!(device.config.u32_at(at + 4), 0x4000);
    assert_eq!(device.config.u32_at(at + 8), 0x5000);
}

#[test]
fn a_vector_is_connected_while_nothing_masks_it() {
    let mut device = device(2);
    device.entry(1, 0xfee0_0000, 0x41, 0);
    assert!(device.connected().is_empty());
    device.control(ENABLE | MASK_ALL);
    assert!(device.connected().is_empty());
    device.control(ENABLE);
    assert_eq!(device.connected(), [FIRST + 1]);
    let message = Message {
        address: 0xfee0_0000,
        data: 0x41,
    };
    assert_eq!(device.wiring.routes.lock().unwrap()[&(FIRST + 1)], message);
    device.msix.write_table(28, &1_u32.to_le_bytes());
    assert!(device.connected().is_empty());
    device.msix.write_table(28, &0_u32.to_le_bytes());
    assert_eq!(device.connected(), [FIRST + 1]);
    device.control(0);
    assert!(device.connected().is_empty());
}

#[test]
fn an_interrupt_while_masked_is_pending_until_it_is_let_through() {
    let mut device = device(2);
    device.control(ENABLE);
    device.msix.event(1).unwrap().write(1).unwrap();
    assert_eq!(device.pending(), 0b10);
    device.entry(1, 0xfee0_0000, 0x41, 0);
    assert_eq!(device.pending(), 0);
    // The kernel finds it on the event that is connected now.
    assert_eq!(device.msix.event(1).unwrap().read().unwrap(), 1);
    assert!(device.msix.event(2).is_none());
}

#[test]
fn a_reset_device_has_nothing_pending() {
    let mut device = device(1);
    device.control(ENABLE);
    device.msix.event(0).unwrap().write(1).unwrap();
    device.msix.forget_pending();
    assert_eq!(device.pending(), 0);
}

#[test]
fn a_removed_device_leaves_nothing_behind() {
    let mut device = device(1);
    device.entry(0, 0xfee0_0000, 0x41, 0);
    device.control(ENABLE);
    let wiring = device.wiring.clone();
    drop(device);
    assert!(wiring.interrupts.lock().unwrap().is_empty());
    assert!(wiring.routes.lock().unwrap().is_empty());
}

proptest::proptest! {
    #[test]
    fn any_write_leaves_table_and_kernel_in_step(
        writes: Vec<(bool, usize, Vec<u8>)>,
    ) {
        let mut device = device(3);
        for (is_control, offset, data) in writes {
            if is_control {
                device.control(u16::try_from(offset & 0xffff).unwrap());
            } else {
                device.msix.write_table(offset % 64, &data[..data.len().min(9)]);
                device.msix.write_table(offset, &data);
            }
            let open = device.msix.control == ENABLE;
            let wanted: Vec<u32> = device
                .msix
                .vectors
                .iter()
                .filter(|vector| open && vector.entry.control == 0)
                .map(|vector| vector.number)
                .collect();
            proptest::prop_assert_eq!(device.connected(), wanted);
            device.msix.read_pending(offset, &mut [0; 4]);
            device.msix.read_table(offset, &mut [0; 8]);
        }
    }
}

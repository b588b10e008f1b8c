//! A driver of a few lines writes registers; a device that remembers stands behind.

use std::os::fd::AsRawFd;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::pci::Function;
use crate::pci::testing::Remembered;
use std::sync::Arc;

const FIRST: u32 = 24;
const ADDRESS: u32 = 0xc000_0000;
const OFFERED: u64 = 1 << 32 | 1 << 29 | 1 << 9;

#[derive(Default)]
struct Memo {
    started: Option<Setup>,
    calls: Vec<usize>,
    writes: Vec<(usize, Vec<u8>)>,
    signals: Option<Arc<Signals>>,
    /// Takes its time to reset.
    slow: bool,
    resets: usize,
}

impl Device for Memo {
    fn kind(&self) -> Kind {
        Kind::Block
    }
    fn features(&self) -> u64 {
        OFFERED
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![256, 128]
    }
    fn attach(&mut self, signals: Arc<Signals>) {
        self.signals = Some(signals);
    }
    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3, 4, 5]
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.writes.push((offset, data.to_vec()));
    }
    fn start(&mut self, setup: Setup) {
        self.started = Some(setup);
    }
    fn set_call(&mut self, queue: usize, _call: EventFd) {
        self.calls.push(queue);
    }
    fn reset(&mut self) {
        self.resets += 1;
        self.started = None;
    }
    fn is_reset(&self) -> bool {
        !self.slow
    }
    fn pause(&mut self) {}
    fn is_paused(&self) -> bool {
        true
    }
    fn resume(&mut self) {}
    fn condition(&self) -> Condition {
        Condition::default()
    }
    fn save(&mut self) -> Receiver<Result<Saved, SaveError>> {
        unreachable!("the transport does not ask")
    }
    fn load(&mut self, _features: u64, _state: Vec<u8>) -> Receiver<Result<(), SaveError>> {
        unreachable!("the transport does not ask")
    }
    fn follow_log(&mut self) -> Receiver<Result<(), SaveError>> {
        unreachable!("the transport does not ask")
    }
}

struct Driver {
    function: Transport,
    device: Arc<Mutex<Memo>>,
    wiring: Arc<Remembered>,
}

impl Driver {
    fn new() -> Self {
        let device = Arc::new(Mutex::new(Memo::default()));
        let wiring = Arc::new(Remembered::default());
        let numbers: Vec<u32> = (FIRST..FIRST + 3).collect();
        let function = Transport::new(device.clone(), wiring.clone(), ADDRESS, &numbers).unwrap();
        let mut driver = Self {
            function,
            device,
            wiring,
        };
        driver.function.write_config(4, &[6, 0]);
        driver
    }

    fn memo(&self) -> std::sync::MutexGuard<'_, Memo> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.function.read_memory(offset, &mut data);
        data
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.function.write_memory(offset, data);
    }

    fn status(&mut self) -> u8 {
        self.read::<1>(20)[0]
    }

    fn choose(&mut self, features: u64) {
        for (select, half) in [(0_u32, features), (1, features >> 32)] {
            self.write(8, &select.to_le_bytes());
            self.write(12, &half.to_le_bytes()[..4]);
        }
    }

    fn set_up_queue(&mut self, index: u16, vector: u16) {
        self.write(22, &index.to_le_bytes());
        self.write(24, &64_u16.to_le_bytes());
        self.write(26, &vector.to_le_bytes());
        for (field, address) in [(32, 0x1000_u64), (40, 0x2_0000_2000), (48, 0x3000)] {
            self.write(field, &address.to_le_bytes()[..4]);
            self.write(field + 4, &address.to_le_bytes()[4..]);
        }
        self.write(28, &1_u16.to_le_bytes());
    }

    fn start(&mut self) {
        self.write(20, &[0]);
        self.write(20, &[3]);
        self.choose(OFFERED);
        self.write(20, &[0xb]);
        self.set_up_queue(0, 1);
        self.write(20, &[0xf]);
        assert_eq!(self.status(), 0xf);
    }

    fn kicks(&self) -> Vec<u64> {
        self.wiring.kicks.lock().unwrap().keys().copied().collect()
    }
}

#[test]
fn the_capabilities_lead_to_the_structures() {
    let mut driver = Driver::new();
    let mut config = [0; 256];
    driver.function.read_config(0, &mut config);
    assert_eq!(config[..4], [0xf4, 0x1a, 0x42, 0x10]);
    let mut at = usize::from(config[0x34]);
    let mut found = Vec::new();
    while at != 0 {
        if config[at] == 9 {
            let offset = u32::from_le_bytes(config[at + 8..at + 12].try_into().unwrap());
            let length = u32::from_le_bytes(config[at + 12..at + 16].try_into().unwrap());
            found.push((config[at + 3], config[at + 2], offset, length));
        }
        at = usize::from(config[at + 1]);
    }
    let expected = [
        (1, 16, 0, 0x1000),
        (3, 16, 0x1000, 4),
        (4, 16, 0x2000, 5),
        (2, 20, 0x3000, 0x1000),
        (5, 20, 0, 0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_driver_starts_the_device_with_what_it_chose() {
    let mut driver = Driver::new();
    driver.start();
    let memo = driver.memo();
    let setup = memo.started.as_ref().unwrap();
    assert_eq!(setup.features, OFFERED);
    let [queue] = &setup.queues[..] else {
        panic!("one queue was enabled")
    };
    assert_eq!((queue.index, queue.size), (0, 64));
    let addresses = (queue.descriptors, queue.available, queue.used);
    assert_eq!(addresses, (0x1000, 0x2_0000_2000, 0x3000));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for features in [1 << 32 | 1 << 8, 1 << 29] {
        let mut driver = Driver::new();
        driver.write(20, &[3]);
        driver.choose(features);
        driver.write(20, &[0xb]);
        assert_eq!(driver.status(), 3);
        driver.write(20, &[0xf]);
        assert_eq!(driver.status(), 3);
        assert!(driver.memo().started.is_none());
    }
}

#[test]
fn features_are_read_in_halves() {
    let mut driver = Driver::new();
    let mut half = |select: u32| {
        driver.write(0, &select.to_le_bytes());
        u32::from_le_bytes(driver.read(4))
    };
    assert_eq!((half(0), half(1), half(2)), (1 << 29 | 1 << 9, 1, 0));
}

#[test]
fn kicks_follow_the_base_address() {
    let mut driver = Driver::new();
    assert!(driver.kicks().is_empty());
    driver.start();
    assert_eq!(driver.kicks(), [0xc000_3000]);
    driver
        .function
        .write_config(0x10, &0xd000_0000_u32.to_le_bytes());
    assert_eq!(driver.kicks(), [0xd000_3000]);
    driver.function.write_config(4, &[0, 0]);
    assert!(driver.kicks().is_empty());
    driver.function.write_config(4, &[6, 0]);
    driver.write(20, &[0]);
    assert!(driver.kicks().is_empty());
}

/// All that a driver can read, but for what reading changes.
fn registers(driver: &mut Driver) -> Vec<u8> {
    let mut all = vec![0; 0x6000];
    driver.function.read_config(0, &mut all[..256]);
    for (offset, len) in [(0, 56), (0x2000, 8), (0x4000, 48)] {
        for at in (offset..offset + len).step_by(8) {
            driver
                .function
                .read_memory(at as u64, &mut all[0x100 + at..][..8]);
        }
    }
    all
}

#[test]
fn a_restored_function_is_what_it_was() {
    let mut driver = Driver::new();
    driver.start();
    driver.write(16, &0_u16.to_le_bytes());
    driver
        .function
        .write_config(0x10, &0xd000_0000_u32.to_le_bytes());
    driver.write(0x4010, &0xfee0_0000_u64.to_le_bytes());
    driver.write(0x4018, &0x41_u64.to_le_bytes());
    driver.memo().signals.clone().unwrap().config_changed();
    let state = driver.function.save(&[(0, 777)].into());
    assert_eq!(state.served_features(), Some(OFFERED));
    let text = serde_json::to_string(&state).unwrap();
    let state: TransportState = serde_json::from_str(&text).unwrap();

    let mut restored = Driver::new();
    assert!(restored.function.restore(&state));
    assert_eq!(registers(&mut restored), registers(&mut driver));
    assert_eq!(restored.kicks(), [0xd000_3000]);
    assert_eq!(restored.read(0x1000), [2]);
    // What the guest was not told of yet is pending still, and what it may not have been told of, too.
    assert_eq!((driver.read(0x5000), restored.read(0x5000)), ([1], [3]));
    let memo = restored.memo();
    let setup = memo.started.as_ref().unwrap();
    assert_eq!((setup.features, setup.queues.len()), (OFFERED, 1));
    let queue = &setup.queues[0];
    assert_eq!((queue.size, queue.position, queue.used), (64, 777, 0x3000));
    assert!(queue.kick.read().is_ok() && queue.call.read().is_ok());
}

#[test]
fn a_function_that_was_reset_or_is_another_one_is_not_started() {
    let mut driver = Driver::new();
    driver.start();
    driver.write(20, &[0]);
    let state = driver.function.save(&Positions::new());
    let mut restored = Driver::new();
    assert!(restored.function.restore(&state));
    assert!(restored.memo().started.is_none());
    assert_eq!(registers(&mut restored), registers(&mut driver));

    driver.start();
    let state = driver.function.save(&Positions::new());
    let text = serde_json::to_string(&state).unwrap();
    for (old, new) in [
        // A feature that is not offered, a queue that is too large, another vendor, a vector less.
        (
            format!("\"chosen\":{OFFERED}"),
            format!("\"chosen\":{}", OFFERED | 1),
        ),
        ("\"size\":64".into(), "\"size\":1024".into()),
        ("\"config\":[244,".into(), "\"config\":[245,".into()),
        ("\"pending\":[false,".into(), "\"pending\":[".into()),
    ] {
        assert!(text.contains(&old), "no {old} in {text}");
        let state: TransportState = serde_json::from_str(&text.replace(&old, &new)).unwrap();
        let mut other = Driver::new();
        assert!(!other.function.restore(&state), "{new}");
        assert!(other.memo().started.is_none(), "{new}");
    }
}

#[test]
fn a_kick_that_comes_to_us_is_passed_on() {
    let mut driver = Driver::new();
    driver.start();
    driver.write(0x3000, &0_u16.to_le_bytes());
    let memo = driver.memo();
    assert_eq!(
        memo.started.as_ref().unwrap().queues[0]
            .kick
            .read()
            .unwrap(),
        1
    );
}

#[test]
fn a_reset_ends_when_the_device_says_so() {
    let mut driver = Driver::new();
    driver.start();
    driver.memo().slow = true;
    driver.write(20, &[0]);
    assert_eq!(driver.status(), 0xf);
    driver.write(20, &[1]);
    assert_eq!(driver.status(), 0xf);
    driver.memo().slow = false;
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.memo().resets, 1);
    driver.write(22, &0_u16.to_le_bytes());
    assert_eq!(driver.read(28), [0, 0]);
    assert_eq!(u16::from_le_bytes(driver.read(24)), 256);
}

/// Drivers reset first thing, and go on at once when they read zero.
#[test]
fn a_device_that_never_ran_is_reset_at_once() {
    let mut driver = Driver::new();
    driver.memo().slow = true;
    driver.start();
    assert!(driver.memo().started.is_some());
    driver.write(20, &[0x40]);
    driver.write(20, &[0]);
    assert_ne!(driver.status(), 0);
}

#[test]
fn vectors_that_are_not_there_are_refused() {
    let mut driver = Driver::new();
    driver.write(16, &7_u16.to_le_bytes());
    assert_eq!(u16::from_le_bytes(driver.read(16)), 0xffff);
    driver.write(16, &0_u16.to_le_bytes());
    assert_eq!(u16::from_le_bytes(driver.read(16)), 0);
}

#[test]
fn another_vector_for_a_running_queue_is_passed_on() {
    let mut driver = Driver::new();
    driver.start();
    driver.write(26, &2_u16.to_le_bytes());
    driver.write(26, &2_u16.to_le_bytes());
    assert_eq!(driver.memo().calls, [0]);
}

#[test]
fn a_changed_configuration_interrupts_and_counts() {
    let mut driver = Driver::new();
    driver.write(16, &0_u16.to_le_bytes());
    driver.write(0x4000 + 12, &0_u32.to_le_bytes());
    let signals = driver.memo().signals.clone().unwrap();
    signals.config_changed();
    assert_eq!(driver.read(21), [1]);
    assert_eq!(driver.read(0x1000), [2]);
    assert_eq!(driver.read(0x1000), [0]);
    // Vectors are off: the interrupt is pending.
    assert_eq!(driver.read(0x5000), [1]);
    signals.needs_reset();
    assert_eq!(driver.status() & 0x40, 0x40);
    driver.write(20, &[0]);
    assert_eq!(driver.status(), 0);
}

#[test]
fn the_device_configuration_can_be_read_and_written() {
    let mut driver = Driver::new();
    assert_eq!(driver.read(0x2001), [2, 3, 4, 5]);
    assert_eq!(driver.read(0x2003), [4, 5, 0, 0]);
    driver.write(0x2004, &[9]);
    assert_eq!(driver.memo().writes, [(4, vec![9])]);
}

#[test]
fn base_addresses_can_be_accessed_through_configuration_space() {
    let mut driver = Driver::new();
    let at = driver.access();
    driver.function.write_config(at + 8, &20_u32.to_le_bytes());
    driver.function.write_config(at + 12, &1_u32.to_le_bytes());
    driver.function.write_config(at + 16, &[3]);
    assert_eq!(driver.status(), 3);
    driver
        .function
        .write_config(at + 8, &0x2000_u32.to_le_bytes());
    driver.function.write_config(at + 12, &4_u32.to_le_bytes());
    let mut data = [0; 4];
    driver.function.read_config(at + 16, &mut data);
    assert_eq!(data, [1, 2, 3, 4]);
}

impl Driver {
    /// The last capability.
    fn access(&mut self) -> usize {
        let mut config = [0; 256];
        self.function.read_config(0, &mut config);
        let mut at = usize::from(config[0x34]);
        while config[at + 1] != 0 {
            at = usize::from(config[at + 1]);
        }
        at
    }
}

#[test]
fn two_functions_at_one_address_do_not_hurt_each_other() {
    let mut first = Driver::new();
    first.start();
    let device = Arc::new(Mutex::new(Memo::default()));
    let numbers = [40, 41, 42];
    let wiring = first.wiring.clone();
    let function = Transport::new(device.clone(), wiring.clone(), ADDRESS, &numbers).unwrap();
    let mut second = Driver {
        function,
        device,
        wiring,
    };
    second.function.write_config(4, &[6, 0]);
    second.start();
    let connected = *first
        .wiring
        .kicks
        .lock()
        .unwrap()
        .get(&0xc000_3000)
        .unwrap();
    let kick = first.memo().started.as_ref().unwrap().queues[0]
        .kick
        .as_raw_fd();
    assert_ne!(
        connected, kick,
        "the kernel has the transport's own descriptor"
    );
    drop(second);
    assert_eq!(first.kicks(), [0xc000_3000]);
}

proptest::proptest! {
    /// Whatever a guest writes wherever: no panic, and nothing stays connected in the end.
    #[test]
    fn hostile_accesses_are_survived(
        accesses in proptest::collection::vec(
            (0_u8..6, 0_usize..0x9000, proptest::collection::vec(proptest::num::u8::ANY, 0..9)), 0..200),
    ) {
        let mut driver = Driver::new();
        for (what, offset, mut data) in accesses {
            let near = [0, 4, 8, 12, 16, 20, 22, 24, 26, 28, 32, 40, 48][offset % 13];
            match what {
                0 => driver.function.write_config(offset % 300, &data),
                1 => driver.function.read_config(offset % 300, &mut data),
                2 => driver.function.write_memory(offset as u64, &data),
                3 => driver.function.read_memory(offset as u64, &mut data),
                4 => driver.function.write_memory(near, &data),
                _ => driver.start(),
            }
        }
        let wiring = driver.wiring.clone();
        drop(driver);
        proptest::prop_assert!(wiring.kicks.lock().unwrap().is_empty());
        proptest::prop_assert!(wiring.interrupts.lock().unwrap().is_empty());
    }
}

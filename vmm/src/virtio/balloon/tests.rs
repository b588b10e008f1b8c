//! The driver blows the balloon up, and reports free pages; the memory file gets holes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::memory::{ByteSize, MemoryConfig};
use crate::virtio::{Device, QueueSetup, Setup};

const MIB: u64 = 1 << 20;
/// Each queue's rings, one behind the other from here on.
const RINGS: u64 = MIB;
const NUMBERS: u64 = 2 * MIB;

struct Driver {
    balloon: Arc<Balloon>,
    device: InProcess<Balloon>,
    memory: GuestMemory,
    kicks: Vec<EventFd>,
    asked: [u16; 3],
}

fn setup(index: usize, kick: &EventFd) -> QueueSetup {
    let rings = RINGS + index as u64 * 0x1_0000;
    QueueSetup {
        index,
        size: 4,
        descriptors: rings,
        available: rings + 0x1000,
        used: rings + 0x2000,
        kick: kick.try_clone().unwrap(),
        call: EventFd::new(EFD_NONBLOCK).unwrap(),
        position: 0,
    }
}

impl Driver {
    fn new() -> Self {
        let memory = GuestMemory::new(MemoryConfig {
            size: ByteSize(64 * MIB),
            hugepages: false,
            prefault: true,
        });
        let memory = memory.unwrap();
        let balloon = Arc::new(Balloon::new(&memory, 0));
        let kicks: Vec<_> = (0..3)
            .map(|_| EventFd::new(EFD_NONBLOCK).unwrap())
            .collect();
        let mut device = balloon.device();
        device.start(Setup {
            features: balloon.features(),
            queues: kicks
                .iter()
                .enumerate()
                .map(|(index, kick)| setup(index, kick))
                .collect(),
        });
        let asked = [0; 3];
        Self {
            balloon,
            device,
            memory,
            kicks,
            asked,
        }
    }

    /// One buffer through a queue; returns when it is used.
    fn ask(&mut self, queue: usize, address: u64, len: u32, flags: u64) {
        let rings = setup(queue, &self.kicks[queue]);
        let memory = self.memory.mapped();
        let rest = u64::from(len) | flags << 32;
        memory
            .write_obj([address, rest], GuestAddress(rings.descriptors))
            .unwrap();
        self.asked[queue] += 1;
        let index = GuestAddress(rings.available + 2);
        memory
            .store(self.asked[queue], index, Ordering::Release)
            .unwrap();
        self.kicks[queue].write(1).unwrap();
        let give_up = Instant::now() + Duration::from_secs(5);
        while self.memory.used_index(rings.used) != Some(self.asked[queue]) {
            assert!(Instant::now() < give_up);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn inflate(&mut self, pages: &[u32]) {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        let memory = self.memory.mapped();
        memory.write_slice(&bytes, GuestAddress(NUMBERS)).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        self.ask(INFLATE, NUMBERS, len, 0);
    }
}

#[test]
fn pages_in_the_balloon_are_the_hosts() {
    let mut driver = Driver::new();
    let before = driver.memory.resident().unwrap();
    let memory = driver.memory.mapped().clone();
    memory.write_obj(7_u64, GuestAddress(8 * MIB)).unwrap();
    memory.write_obj(8_u64, GuestAddress(9 * MIB)).unwrap();
    // Not in order, one twice, one beyond memory.
    let mut pages: Vec<u32> = (2048..2048 + 256).rev().collect();
    pages.extend([2048, u32::MAX, 16384]);
    driver.inflate(&pages);
    assert_eq!(driver.balloon.returned(), MIB);
    assert_eq!(memory.read_obj::<u64>(GuestAddress(8 * MIB)).unwrap(), 0);
    assert_eq!(memory.read_obj::<u64>(GuestAddress(9 * MIB)).unwrap(), 8);
    // The page that was just read is there again.
    assert_eq!(driver.memory.resident().unwrap(), before - MIB + PAGE);
    driver.ask(1, NUMBERS, 1024, 0);
    assert_eq!(driver.balloon.returned(), MIB);
}

#[test]
fn reported_pages_are_the_hosts() {
    let mut driver = Driver::new();
    let before = driver.memory.resident().unwrap();
    driver.ask(REPORTING, 16 * MIB, 4 << 20, 2);
    assert_eq!(driver.memory.resident().unwrap(), before - 4 * MIB);
    // Across the end of memory, and nowhere: nothing happens.
    driver.ask(REPORTING, 62 * MIB, 4 << 20, 2);
    driver.ask(REPORTING, u64::MAX - 100, 4 << 20, 2);
    assert_eq!(driver.memory.resident().unwrap(), before - 4 * MIB);
    assert_eq!(driver.balloon.returned(), 4 * MIB);
}

#[test]
fn a_new_size_is_told_to_the_driver() {
    let mut driver = Driver::new();
    let signals = Arc::new(Signals::default());
    driver.device.attach(signals.clone());
    driver.balloon.resize(3 * MIB + 5);
    assert_eq!(signals.generation(), 1);
    assert_eq!(driver.device.config(), [0, 3, 0, 0, 0, 0, 0, 0]);
    driver.device.write_config(4, &[0, 2, 0, 0]);
    driver.device.write_config(0, &[9, 9, 9, 9]);
    driver.device.write_config(4, &[9]);
    assert_eq!(
        (driver.balloon.target(), driver.balloon.actual()),
        (3 * MIB, 2 * MIB)
    );
    let saved = driver.balloon.save().unwrap();
    let other = Balloon::new(&driver.memory, 0);
    assert!(other.load(&saved) && !other.load(&saved[1..]));
    assert_eq!((other.target(), other.actual()), (3 * MIB, 2 * MIB));
    driver.device.reset();
    assert_eq!(
        (driver.balloon.target(), driver.balloon.actual()),
        (3 * MIB, 0)
    );
}

//! Deaths at every step, and what the next process finds.

use virtio_queue::QueueState;
use vm_memory::{FileOffset, GuestAddress};

use super::*;
use crate::memory::Memory;

fn memory() -> Memory {
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x8000).unwrap();
    let file = Some(FileOffset::new(file, 0));
    Memory::from_ranges_with_files([(GuestAddress(0), 0x8000, file)]).unwrap()
}

fn ring() -> QueueState {
    QueueState {
        max_size: 8,
        next_avail: 0,
        next_used: 0,
        event_idx_enabled: false,
        size: 8,
        ready: true,
        desc_table: 0x1000,
        avail_ring: 0x2000,
        used_ring: 0x3000,
    }
}

/// A process dies: its log is opened again by the next one.
struct Deaths {
    path: PathBuf,
    boot: BootId,
    memory: Memory,
    _dir: tempfile::TempDir,
}

impl Deaths {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            path: dir.path().join("log"),
            boot: BootId::current(),
            memory: memory(),
            _dir: dir,
        }
    }

    fn open(&self) -> InFlightLog {
        InFlightFile::open(&self.path, self.boot, 2, 8)
            .unwrap()
            .queue(1)
    }

    fn attach(&self, log: &mut InFlightLog, used: u16, available: u16) -> Vec<u16> {
        let identity = RingIdentity::of(&ring(), &self.memory);
        log.attach(&identity, ring().size, used, available)
    }

    fn attach_again(&self, ring: &QueueState, used: u16, available: u16) -> Vec<u16> {
        let identity = RingIdentity::of(ring, &self.memory);
        self.open().attach(&identity, ring.size, used, available)
    }
}

#[test]
fn requests_left_in_flight_are_found_oldest_first() {
    let deaths = Deaths::new();
    let mut log = deaths.open();
    assert!(deaths.attach(&mut log, 0, 0).is_empty());
    for head in [5, 2, 7] {
        log.taken(head);
    }
    log.completed(2);
    log.publishing(0, 1);
    log.published(1);
    drop(log);
    assert_eq!(deaths.attach_again(&ring(), 1, 3), [5, 7]);
    // Recovering does not use them up: another death finds them again.
    assert_eq!(deaths.attach_again(&ring(), 1, 3), [5, 7]);
}

#[test]
fn the_guests_index_tells_whether_a_batch_was_published() {
    for (used, left) in [(0, vec![4, 5]), (1, vec![5])] {
        let deaths = Deaths::new();
        let mut log = deaths.open();
        deaths.attach(&mut log, 0, 0);
        log.taken(4);
        log.taken(5);
        log.completed(4);
        log.publishing(0, 1);
        drop(log);
        assert_eq!(
            deaths.attach_again(&ring(), used, 2),
            left,
            "used index {used}"
        );
    }
}

#[test]
fn completed_but_never_offered_is_done_again() {
    let deaths = Deaths::new();
    let mut log = deaths.open();
    deaths.attach(&mut log, 9, 9);
    log.taken(1);
    log.completed(1);
    drop(log);
    assert_eq!(deaths.attach_again(&ring(), 9, 10), [1]);
}

#[test]
fn another_ring_or_another_guest_recovers_nothing() {
    let moved = QueueState {
        used_ring: 0x4000,
        ..ring()
    };
    for (ring_now, used, available) in [(moved, 3, 4), (ring(), 7, 8), (ring(), 3, 3)] {
        let deaths = Deaths::new();
        let mut log = deaths.open();
        deaths.attach(&mut log, 3, 3);
        log.taken(1);
        drop(log);
        assert!(deaths.attach_again(&ring_now, used, available).is_empty());
    }
}

/// The next guest of the daemon, or of the one after a reboot, puts its rings where this one had them.
#[test]
fn the_same_ring_in_other_memory_or_after_a_reboot_recovers_nothing() {
    let mut deaths = Deaths::new();
    let mut log = deaths.open();
    deaths.attach(&mut log, 0, 0);
    log.taken(1);
    drop(log);
    let this_boot = std::mem::replace(&mut deaths.boot, BootId::parse(&"f".repeat(32)).unwrap());
    assert!(
        deaths.attach_again(&ring(), 0, 1).is_empty(),
        "another boot"
    );
    for at in [this_boot, deaths.boot] {
        deaths.boot = at;
        let mut log = deaths.open();
        deaths.attach(&mut log, 0, 0);
        log.taken(1);
    }
    assert_eq!(deaths.attach_again(&ring(), 0, 1), [1]);
    deaths.memory = memory();
    assert!(
        deaths.attach_again(&ring(), 0, 1).is_empty(),
        "other memory"
    );
}

#[test]
fn a_note_lasts_as_long_as_its_ring() {
    let deaths = Deaths::new();
    let file = || InFlightFile::open(&deaths.path, deaths.boot, 2, 8).unwrap();
    deaths.attach_again(&ring(), 0, 0);
    file().note(1, 7);
    deaths.attach_again(&ring(), 3, 3);
    let identity = RingIdentity::of(&ring(), &deaths.memory);
    assert_eq!(file().noted(1), (identity, 7));
    assert_eq!(file().noted(0).1, 0);
    let other = QueueState {
        used_ring: 0x4000,
        ..ring()
    };
    deaths.attach_again(&other, 3, 3);
    let identity = RingIdentity::of(&other, &deaths.memory);
    assert_eq!(file().noted(1), (identity, 0));
}

//! Drivers that go on, and others in their place.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use vhost_daemon::boot_id::BootId;

use super::*;
use crate::config::Mac;

const FEATURES: u64 = 0x1234;
const SIZE: u16 = 64;
const LANES: usize = 4;

fn ring(at: u64) -> RingIdentity {
    RingIdentity::from_words([at, 1, 2, SIZE.into(), 4, 5])
}

fn choices() -> Choices {
    let mut wishes = Wishes::new(Some(Mac([2, 0, 0, 0, 0, 7])), true);
    wishes.set_mode(0, false);
    wishes.set_vlan(5, true);
    wishes.set_table(&[Mac([2; 6])], &[Mac([1; 6]), Mac([3; 6])]);
    Choices {
        pairs: Some(3),
        offloads: Offloads::CHECKSUM,
        wishes,
    }
}

struct Deaths(tempfile::TempDir);

impl Deaths {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("driver")
    }

    fn process(&self) -> DriverMemory {
        let file = DriverFile::open(&self.path(), BootId::current()).unwrap();
        DriverMemory::in_file(file, LANES)
    }

    /// The driver's commands, three of them, and the death of the process.
    fn after_commands() -> Self {
        let deaths = Self::new();
        let process = deaths.process();
        let begun = process.begin(FEATURES, &ring(0), SIZE, 0);
        assert_eq!(begun, Beginning::New);
        for used in 1..=3 {
            process.remember(FEATURES, used, choices());
        }
        deaths
    }
}

#[test]
fn a_driver_that_goes_on_is_found_by_process_after_process() {
    let deaths = Deaths::after_commands();
    // The last answers may not have been shown.
    for used in [3, 2, 1, 3] {
        let begun = deaths.process().begin(FEATURES, &ring(0), SIZE, used);
        assert_eq!(begun, Beginning::Old(Box::new(choices())), "index {used}");
    }
}

#[test]
fn without_a_file_the_next_connection_knows_it() {
    let memory = DriverMemory::default();
    assert_eq!(memory.begin(FEATURES, &ring(0), SIZE, 0), Beginning::New);
    memory.remember(FEATURES, 1, choices());
    // Its ring stops and goes on, as when the memory table changes.
    assert_eq!(memory.begin(FEATURES, &ring(0), SIZE, 1), Beginning::Known);
    memory.negotiated();
    let begun = memory.begin(FEATURES, &ring(0), SIZE, 1);
    assert_eq!(begun, Beginning::Old(Box::new(choices())));
}

#[test]
fn another_driver_gets_nothing_of_it() {
    for (features, ring_now, used, expected) in [
        (FEATURES, ring(0), 0, Beginning::New),
        (FEATURES + 1, ring(0), 3, Beginning::Unknown),
        (FEATURES, ring(1), 3, Beginning::Unknown),
        (FEATURES, ring(0), 4, Beginning::Unknown),
        (FEATURES, ring(0), 4000, Beginning::Unknown),
    ] {
        let deaths = Deaths::after_commands();
        let begun = deaths.process().begin(features, &ring_now, SIZE, used);
        assert_eq!(begun, expected);
        // And nobody after that one.
        let begun = deaths.process().begin(FEATURES, &ring(0), SIZE, 3);
        assert_eq!(begun, Beginning::Unknown);
    }
}

#[test]
fn a_file_with_nonsense_is_about_no_driver() {
    let deaths = Deaths::after_commands();
    let whole = std::fs::read(deaths.path()).unwrap();
    // Behind the header: the used index, the pairs, the offloads; behind the ring: the counts of addresses.
    for (word, value) in [
        (5, 1 << 16),
        (6, LANES as u64 + 1),
        (7, 1 << 40),
        (16, 1025),
        (17, !0),
    ] {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(deaths.path())
            .unwrap();
        file.write_all_at(&whole, 0).unwrap();
        file.write_all_at(&u64::to_ne_bytes(value), word * 8)
            .unwrap();
        let begun = deaths.process().begin(FEATURES, &ring(0), SIZE, 3);
        assert_eq!(begun, Beginning::Unknown, "word {word}");
    }
    std::fs::write(deaths.path(), &whole[..100]).unwrap();
    let begun = deaths.process().begin(FEATURES, &ring(0), SIZE, 3);
    assert_eq!(begun, Beginning::Unknown, "cut short");
}

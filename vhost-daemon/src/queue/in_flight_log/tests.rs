//! Deaths at every step, and what the next process finds.

use super::*;

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
    _dir: tempfile::TempDir,
}

impl Deaths {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            path: dir.path().join("log"),
            _dir: dir,
        }
    }

    fn open(&self) -> InFlightLog {
        InFlightFile::open(&self.path, 2, 8).unwrap().queue(1)
    }
}

#[test]
fn requests_left_in_flight_are_found_oldest_first() {
    let deaths = Deaths::new();
    let mut log = deaths.open();
    assert!(log.attach(&ring(), 0, 0).is_empty());
    for head in [5, 2, 7] {
        log.taken(head);
    }
    log.completed(2);
    log.publishing(0, 1);
    log.published(1);
    drop(log);
    assert_eq!(deaths.open().attach(&ring(), 1, 3), [5, 7]);
    // Recovering does not use them up: another death finds them again.
    assert_eq!(deaths.open().attach(&ring(), 1, 3), [5, 7]);
}

#[test]
fn the_guests_index_tells_whether_a_batch_was_published() {
    for (used, left) in [(0, vec![4, 5]), (1, vec![5])] {
        let deaths = Deaths::new();
        let mut log = deaths.open();
        log.attach(&ring(), 0, 0);
        log.taken(4);
        log.taken(5);
        log.completed(4);
        log.publishing(0, 1);
        drop(log);
        assert_eq!(
            deaths.open().attach(&ring(), used, 2),
            left,
            "used index {used}"
        );
    }
}

#[test]
fn completed_but_never_offered_is_done_again() {
    let deaths = Deaths::new();
    let mut log = deaths.open();
    log.attach(&ring(), 9, 9);
    log.taken(1);
    log.completed(1);
    drop(log);
    assert_eq!(deaths.open().attach(&ring(), 9, 10), [1]);
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
        log.attach(&ring(), 3, 3);
        log.taken(1);
        drop(log);
        assert!(deaths.open().attach(&ring_now, used, available).is_empty());
    }
}

#[test]
fn a_log_has_one_user() {
    let deaths = Deaths::new();
    let _first = InFlightFile::open(&deaths.path, 2, 8).unwrap();
    let second = InFlightFile::open(&deaths.path, 2, 8);
    assert!(matches!(second, Err(LogError::InUse(_))));
}

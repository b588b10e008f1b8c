//! The device side of a virtqueue on arbitrary ring memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use proptest::prelude::*;
use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::metrics::QueueMetrics;
use vhost_daemon::queue::{ChainError, RunningQueue};
use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress};

const SIZE: u16 = 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const DATA: u64 = 0x4000;
const MEMORY: usize = 0x1_0000;

fn state(event_idx: bool) -> QueueState {
    QueueState {
        max_size: SIZE,
        next_avail: 0,
        next_used: 0,
        event_idx_enabled: event_idx,
        size: SIZE,
        ready: true,
        desc_table: DESCRIPTORS,
        avail_ring: AVAILABLE,
        used_ring: USED,
    }
}

fn memory() -> PinnedMemory {
    PinnedMemory::new(Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap()).unwrap()
}

fn queue(memory: &PinnedMemory) -> RunningQueue {
    let metrics = Arc::new(QueueMetrics::default());
    RunningQueue::new(&state(false), memory.clone(), None, metrics, None).unwrap()
}

fn describe(memory: &Memory, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
    let at = DESCRIPTORS + u64::from(index) * 16;
    write_descriptor(memory, at, addr, len, flags, next);
}

fn write_descriptor(memory: &Memory, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
    let mut bytes = addr.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    memory.write_slice(&bytes, GuestAddress(at)).unwrap();
}

fn make_available(memory: &PinnedMemory, heads: &[u16]) {
    for (n, head) in (0_u64..).zip(heads) {
        memory
            .write_obj(*head, GuestAddress(AVAILABLE + 4 + n * 2))
            .unwrap();
    }
    memory
        .write_obj(heads.len() as u16, GuestAddress(AVAILABLE + 2))
        .unwrap();
}

#[test]
fn completions_are_published_together() {
    let memory = memory();
    describe(&memory, 0, DATA, 16, 0, 0);
    describe(&memory, 1, DATA, 16, 0, 0);
    make_available(&memory, &[0, 1]);
    let mut queue = queue(&memory);
    let (first, _) = queue.pop().unwrap().unwrap();
    let (second, _) = queue.pop().unwrap().unwrap();
    assert!(queue.pop().unwrap().is_none());
    assert_eq!(queue.in_flight(), 2);
    queue.complete(second, 7);
    queue.complete(first, 9);
    let index = || memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap();
    assert_eq!(index(), 0, "nothing is shown before publish");
    queue.publish();
    assert_eq!(index(), 2);
    assert_eq!(
        memory.read_obj::<[u32; 4]>(GuestAddress(USED + 4)).unwrap(),
        [1, 7, 0, 9]
    );
}

#[test]
fn a_request_given_back_is_popped_again() {
    let memory = memory();
    describe(&memory, 3, DATA, 16, 0, 0);
    make_available(&memory, &[3]);
    let mut queue = queue(&memory);
    let (token, _) = queue.pop().unwrap().unwrap();
    queue.unpop(token);
    assert_eq!((queue.in_flight(), queue.next_avail()), (0, 0));
    let (token, _) = queue.pop().unwrap().unwrap();
    assert_eq!(token.head(), 3);
    queue.complete(token, 0);
}

#[test]
fn an_indirect_table_has_1024_entries_at_most() {
    const TABLE: u64 = 0x5000;
    for (count, is_sound) in [(1024, true), (1025, false)] {
        let memory = memory();
        for index in 0..count {
            let at = TABLE + u64::from(index) * 16;
            let more = u16::from(index + 1 < count);
            write_descriptor(&memory, at, DATA, 1, more, index + 1);
        }
        describe(&memory, 0, TABLE, u32::from(count) * 16, 4, 0);
        make_available(&memory, &[0]);
        let mut queue = queue(&memory);
        let (token, chain) = queue.pop().unwrap().unwrap();
        match chain {
            Ok(chain) => assert_eq!((chain.readable.len(), is_sound), (1024, true)),
            Err(fault) => assert_eq!((fault, is_sound), (ChainError::BadIndirectTable, false)),
        }
        queue.complete(token, 0);
    }
}

#[test]
fn rings_outside_memory_are_refused() {
    let memory = memory();
    let end = MEMORY as u64;
    for (desc_table, avail_ring, used_ring) in [
        (end, AVAILABLE, USED),
        (DESCRIPTORS, end - 2, USED),
        (DESCRIPTORS, AVAILABLE, end - 4),
    ] {
        let state = QueueState {
            desc_table,
            avail_ring,
            used_ring,
            ..state(true)
        };
        let metrics = Arc::new(QueueMetrics::default());
        assert!(RunningQueue::new(&state, memory.clone(), None, metrics, None).is_err());
    }
}

#[test]
#[should_panic(expected = "dropped without being completed")]
#[cfg(debug_assertions)]
fn a_lost_request_is_a_bug_that_shows() {
    let memory = memory();
    describe(&memory, 0, DATA, 16, 0, 0);
    make_available(&memory, &[0]);
    let mut queue = queue(&memory);
    drop(queue.pop().unwrap());
}

/// As many requests as the ring holds at a time: each asks with four bytes and is answered in four others.
const IN_FLIGHT: u16 = SIZE / 2;

/// The driver's side: it offers all it can, and finds the answers behind the used index.
fn drive(memory: &Memory, batches: u16) {
    let question = |slot: u16| GuestAddress(DATA + u64::from(slot) * 8);
    let answer = |slot: u16| GuestAddress(DATA + u64::from(slot) * 8 + 4);
    for slot in 0..IN_FLIGHT {
        let (head, next) = (slot * 2, slot * 2 + 1);
        describe(memory, head, question(slot).0, 4, 1, next);
        describe(memory, next, answer(slot).0, 4, 2, 0);
    }
    for batch in 0..batches {
        let begun = batch * IN_FLIGHT;
        for slot in 0..IN_FLIGHT {
            let asked = u32::from(begun + slot);
            memory.write_obj(asked, question(slot)).unwrap();
            let entry = u64::from((begun + slot) % SIZE);
            let entry = GuestAddress(AVAILABLE + 4 + entry * 2);
            memory.write_obj(slot * 2, entry).unwrap();
        }
        let end = begun + IN_FLIGHT;
        let available = GuestAddress(AVAILABLE + 2);
        memory.store(end, available, Ordering::Release).unwrap();
        let used = GuestAddress(USED + 2);
        while memory.load::<u16>(used, Ordering::Acquire).unwrap() != end {
            thread::yield_now();
        }
        for slot in 0..IN_FLIGHT {
            let entry = u64::from((begun + slot) % SIZE);
            let entry = GuestAddress(USED + 4 + entry * 8);
            let [head, written] = memory.read_obj::<[u32; 2]>(entry).unwrap();
            assert_eq!((head, written), (u32::from(slot) * 2, 4));
            let answered = memory.read_obj::<u32>(answer(slot)).unwrap();
            assert_eq!(answered, u32::from(begun + slot) + 7);
        }
    }
}

/// What either side wrote before it moved its index is there for the other that reads behind it. Under Miri a store or
/// load of the wrong order is a data race, whatever the processor would make of it.
#[test]
fn a_driver_in_another_thread_finds_every_answer() {
    let batches = if cfg!(miri) { 4 } else { 2000 };
    let shared = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let memory = PinnedMemory::new(shared.clone()).unwrap();
    let mut queue = queue(&memory);
    let driver = thread::spawn(move || drive(&shared, batches));
    let mut done = 0;
    while done < batches * IN_FLIGHT {
        let Some((token, chain)) = queue.pop().unwrap() else {
            assert!(!driver.is_finished(), "the driver gave up");
            thread::yield_now();
            continue;
        };
        let mut chain = chain.unwrap();
        let asked = chain.readable.read_obj::<u32>().unwrap();
        assert!(chain.writable.write_obj(&(asked + 7)));
        queue.complete(token, 4);
        queue.publish();
        done += 1;
    }
    driver.join().unwrap();
}

/// A descriptor that is more often sound than not.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let addr = prop_oneof![4 => DATA..MEMORY as u64, 1 => any::<u64>()];
    let len = prop_oneof![4 => 0_u32..0x800, 1 => any::<u32>()];
    let next = prop_oneof![4 => 0..SIZE, 1 => any::<u16>()];
    (addr, len, 0_u16..8, next)
}

/// Everything but the used ring.
fn outside_used(memory: &PinnedMemory) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes[0x3000..0x3000 + 6 + 8 * usize::from(SIZE)].fill(0);
    bytes
}

proptest! {
    #[test]
    fn any_ring_memory_is_walked_safely(
        descriptors in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(
            prop_oneof![8 => 0..SIZE, 1 => any::<u16>()],
            usize::from(SIZE),
        ),
        index in prop_oneof![8 => 0..=SIZE, 1 => any::<u16>()],
    ) {
        let memory = memory();
        for (n, (addr, len, flags, next)) in (0..).zip(descriptors) {
            describe(&memory, n, addr, len, flags, next);
        }
        make_available(&memory, &heads);
        memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
        let before = outside_used(&memory);

        let mut queue = queue(&memory);
        let mut tokens = Vec::new();
        while let Ok(Some((token, _chain))) = queue.pop() {
            tokens.push(token);
        }
        prop_assert!(tokens.len() <= usize::from(SIZE));
        prop_assert_eq!(queue.in_flight(), tokens.len());
        for token in tokens {
            queue.complete(token, 1);
        }
        queue.publish();
        prop_assert!(before == outside_used(&memory), "bytes outside the used ring changed");
    }
}

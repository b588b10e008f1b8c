//! The driver against a device that is played here, where its faults can be chosen.

use std::time::Duration;

use super::net::{HEADER_LEN, Header, Receive};
use super::{DriverQueue, Error, GuestAddress, GuestMemory, Segment, Used, features};

const SHORT: Duration = Duration::from_millis(20);
const SIZE: u16 = 8;

fn queue(negotiated: u64) -> DriverQueue {
    DriverQueue::new(
        &GuestMemory::with_size(1 << 20).unwrap(),
        0,
        SIZE,
        negotiated,
    )
    .unwrap()
}

fn chain(queue: &mut DriverQueue) -> u16 {
    queue
        .add_chain(&[Segment::readable(GuestAddress(0x8000), 16)], false)
        .unwrap()
}

/// The device's side: the `position`-th used entry and the index behind it.
fn complete(queue: &DriverQueue, position: u16, id: u16, len: u32) {
    let used = queue.addresses().used.0;
    let entry = GuestAddress(used + 4 + 8 * u64::from(position % SIZE));
    let bytes = [u32::from(id).to_le_bytes(), len.to_le_bytes()].concat();
    queue.memory().write(entry, &bytes).unwrap();
    let index = position.wrapping_add(1).to_le_bytes();
    queue
        .memory()
        .write(GuestAddress(used + 2), &index)
        .unwrap();
}

#[test]
fn with_event_idx_only_the_awaited_entry_kicks() {
    let mut queue = queue(features::EVENT_IDX);
    let avail_event = GuestAddress(queue.addresses().used.0 + 4 + 8 * u64::from(SIZE));
    queue
        .memory()
        .write(avail_event, &1_u16.to_le_bytes())
        .unwrap();
    chain(&mut queue);
    assert!(
        !queue.kick().unwrap(),
        "the device waits for the second entry"
    );
    chain(&mut queue);
    assert!(queue.kick().unwrap());
    assert!(!queue.kick().unwrap(), "nothing new");
}

#[test]
fn without_event_idx_the_flag_decides() {
    let mut queue = queue(0);
    chain(&mut queue);
    assert!(queue.kick().unwrap());
    queue
        .memory()
        .write(queue.addresses().used, &1_u16.to_le_bytes())
        .unwrap();
    chain(&mut queue);
    assert!(!queue.kick().unwrap());
}

#[test]
fn descriptors_come_back_for_more_rounds_than_the_index_has() {
    let mut queue = queue(0);
    for round in 0..=u16::MAX {
        let head = chain(&mut queue);
        queue.publish().unwrap();
        complete(&queue, round, head, 5);
        assert_eq!(
            queue.poll_used().unwrap(),
            [Used {
                id: u32::from(head),
                len: 5
            }]
        );
    }
    assert_eq!(queue.free_descriptors(), usize::from(SIZE));
}

#[test]
fn a_used_entry_without_an_interrupt_is_told() {
    let mut queue = queue(features::EVENT_IDX);
    let head = chain(&mut queue);
    queue.kick().unwrap();
    let (ring, memory) = (queue.addresses().used, queue.memory().clone());
    let late = std::thread::spawn(move || {
        std::thread::sleep(SHORT / 2);
        let bytes = [u32::from(head).to_le_bytes(), [0; 4]].concat();
        memory.write(GuestAddress(ring.0 + 4), &bytes).unwrap();
        memory
            .write(GuestAddress(ring.0 + 2), &1_u16.to_le_bytes())
            .unwrap();
    });
    let error = queue.wait_used(SHORT * 5).unwrap_err();
    assert!(
        matches!(error, Error::InterruptLost { pending: 1, .. }),
        "{error}"
    );
    late.join().unwrap();
}

#[test]
fn completions_of_nothing_are_told() {
    let mut queue = queue(0);
    let head = chain(&mut queue);
    complete(&queue, 0, head + 1, 0);
    assert!(matches!(
        queue.poll_used().unwrap_err(),
        Error::UnknownUsed { .. }
    ));
    complete(&queue, 4, head, 0);
    assert!(matches!(
        queue.poll_used().unwrap_err(),
        Error::UsedOverrun { moved: 4, .. }
    ));
}

#[test]
fn an_interrupt_is_asked_for_where_the_driver_is() {
    let mut queue = queue(features::EVENT_IDX);
    let head = chain(&mut queue);
    complete(&queue, 0, head, 0);
    queue.poll_used().unwrap();
    assert!(queue.wait_used(SHORT).unwrap().is_empty());
    let used_event = GuestAddress(queue.addresses().avail.0 + 4 + 2 * u64::from(SIZE));
    assert_eq!(queue.memory().read(used_event, 2).unwrap(), [1, 0]);
}

#[test]
fn a_frame_is_put_together_from_its_buffers() {
    let queue = queue(0);
    let memory = queue.memory().clone();
    let ring = queue.addresses().desc;
    let mut receive = Receive::new(queue, 64);
    receive.post(2).unwrap();
    let header = Header {
        num_buffers: 2,
        ..Header::default()
    };
    let parts = [
        [&header.to_bytes()[..], &[1; 64 - HEADER_LEN]].concat(),
        vec![2; 10],
    ];
    for (position, bytes) in (0_u16..).zip(&parts) {
        let entry = GuestAddress(ring.0 + 16 * u64::from(position));
        let buffer = memory.read(entry, 8).unwrap().try_into().unwrap();
        memory
            .write(GuestAddress(u64::from_le_bytes(buffer)), bytes)
            .unwrap();
        complete(
            receive.queue_mut(),
            position,
            position,
            u32::try_from(bytes.len()).unwrap(),
        );
    }
    let frames = receive.receive(SHORT).unwrap();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].header, header);
    assert_eq!(
        frames[0].frame,
        [vec![1; 64 - HEADER_LEN], vec![2; 10]].concat()
    );
}

#[test]
fn buffers_are_apart_and_come_back() {
    let memory = GuestMemory::new(&[(GuestAddress(0), 8192), (GuestAddress(1 << 32), 4096)]);
    let memory = memory.unwrap();
    let first = memory.alloc(100, 64).unwrap();
    let second = memory.alloc(4096, 4096).unwrap();
    assert_eq!((first, second), (GuestAddress(0), GuestAddress(4096)));
    assert_eq!(memory.alloc(4096, 4096).unwrap(), GuestAddress(1 << 32));
    assert!(matches!(
        memory.alloc(4096, 4096),
        Err(Error::OutOfMemory { .. })
    ));
    memory.free(first, 100, 64);
    assert_eq!(memory.alloc(90, 64).unwrap(), first);
    let sum = memory.checksum_all().unwrap();
    memory.write(GuestAddress((1 << 32) + 4095), &[1]).unwrap();
    assert_ne!(memory.checksum_all().unwrap(), sum);
}

//! Stop under load: after the answer to `GET_VRING_BASE` nothing of ours writes guest memory; and a stop that a front
//! end would hold up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::os::fd::AsFd;
use std::time::Duration;

use disk::{ALL, Disk};
use lab::frontend::blk::{Blk, Data, kind, status};
use lab::frontend::{FrontEnd, GuestMemory, features};
use rustix::fs::{OFlags, fcntl_setfl};
use vhost::VhostBackend;

const IMAGE: u64 = 64 << 20;
const READ: usize = 1 << 20;
const READS: u16 = 24;

/// A disk whose image is not in the page cache: its reads take the time of the host's disk.
fn cold(disk: &Disk) {
    let mut bytes = Vec::new();
    for block in 0..IMAGE >> 20 {
        bytes.extend(lab::pattern(block, 1 << 20));
    }
    std::fs::write(&disk.image, bytes).unwrap();
    drop_cache(disk);
}

fn drop_cache(disk: &Disk) {
    let file = std::fs::File::open(&disk.image).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn loaded(disk: &Disk, memory: &GuestMemory) -> (FrontEnd, Blk) {
    let mut front_end = disk.front_end(ALL, memory);
    let mut blk = Blk::new(front_end.set_up_queue(0, 128).unwrap());
    // The queue is up and its thread runs.
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    for n in 0..u64::from(READS) {
        blk.stage(kind::IN, n * 2048, Data::FromDevice(READ))
            .unwrap();
    }
    blk.kick().unwrap();
    (front_end, blk)
}

fn checksum(memory: &GuestMemory) -> u64 {
    memory.checksum_all().unwrap()
}

#[test]
fn no_guest_byte_changes_after_the_answer() {
    let disk = Disk::start("blk-stop", IMAGE);
    cold(&disk);
    let mut stopped_early = 0;
    for round in 0..12_u64 {
        drop_cache(&disk);
        let memory = GuestMemory::with_size(32 << 20).unwrap();
        let (mut front_end, blk) = loaded(&disk, &memory);
        std::thread::sleep(Duration::from_micros(round * 300));
        let base = front_end.stop_queue(0).unwrap();
        let (used, sum) = (blk.queue().used_idx().unwrap(), checksum(&memory));
        assert_eq!(base, used, "taken and not completed");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(
            checksum(&memory),
            sum,
            "guest memory changed after the answer"
        );
        assert_eq!(blk.queue().used_idx().unwrap(), used);
        stopped_early += u32::from(base < READS + 1);
    }
    // How many were taken before the stop is chance; the checks above hold in any case.
    println!("{stopped_early} of 12 rounds stopped before all requests were taken");
}

#[test]
fn no_guest_byte_changes_after_a_disconnect_was_noticed() {
    let mut disk = Disk::start("blk-drop", IMAGE);
    cold(&disk);
    for round in 1..=8 {
        drop_cache(&disk);
        let memory = GuestMemory::with_size(32 << 20).unwrap();
        let (front_end, _blk) = loaded(&disk, &memory);
        drop(front_end);
        let ended = |d: &Disk| d.daemon.stderr().matches("front end disconnected").count() >= round;
        let deadline = std::time::Instant::now() + disk::SOON;
        while !ended(&disk) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(ended(&disk), "{}", disk.daemon.stderr());
        let sum = checksum(&memory);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(
            checksum(&memory),
            sum,
            "guest memory changed after the disconnect"
        );
    }
    assert!(disk.daemon.is_running());
}

#[test]
fn a_stopped_queue_goes_on_where_it_stopped() {
    let disk = Disk::start("blk-resume", IMAGE);
    cold(&disk);
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let (mut front_end, mut blk) = loaded(&disk, &memory);
    let base = front_end.stop_queue(0).unwrap();
    front_end.attach_queue(blk.queue(), base).unwrap();
    let mut done = 0;
    while done < usize::from(READS) {
        let replies = blk.wait_any(disk::SOON).unwrap();
        assert!(!replies.is_empty(), "{done} of {READS} requests answered");
        for (_, status, data) in replies {
            assert_eq!((status, data.len()), (status::OK, READ));
            done += 1;
        }
    }
}

#[test]
fn a_disabled_queue_rests_and_an_enabled_one_goes_on() {
    let disk = Disk::start("blk-disable", 8 << 20);
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut blk = Blk::new(front_end.set_up_queue(0, 128).unwrap());
    for _ in 0..10 {
        front_end.enable_queue(0, false).unwrap();
        let ticket = blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(
            blk.queue().pending().unwrap(),
            0,
            "a disabled queue was served"
        );
        front_end.enable_queue(0, true).unwrap();
        assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
    }
}

#[test]
fn a_new_memory_table_is_taken_up_while_running() {
    let disk = Disk::start("blk-memory", 8 << 20);
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut blk = Blk::new(front_end.set_up_queue(0, 128).unwrap());
    for _ in 0..50 {
        let ticket = blk.submit(kind::IN, 0, Data::FromDevice(65536)).unwrap();
        front_end.set_mem_table(&memory).unwrap();
        assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
    }
}

/// A connection whose queue's thread waits in write(2): its call descriptor could not wait when it was handed over, and
/// is now full and can.
fn held_up(disk: &Disk) -> (FrontEnd, Blk, lab::Event) {
    let (mut front_end, mut blk) = disk.driver(ALL & !features::EVENT_IDX);
    // The queue is up and its thread runs.
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    let event = lab::Event::new().unwrap();
    front_end
        .request("SET_VRING_CALL", |v| v.set_vring_call(0, event.eventfd()))
        .unwrap();
    // The queue has it.
    assert_ne!(event.wait(disk::SOON).unwrap(), 0);
    event.eventfd().write(u64::MAX - 1).unwrap();
    fcntl_setfl(&event, OFlags::empty()).unwrap();
    for _ in 0..2 {
        blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(blk.queue().pending().unwrap(), 1, "it is not held up");
    }
    (front_end, blk, event)
}

#[test]
fn a_call_descriptor_that_waits_holds_up_no_end() {
    let mut disk = Disk::start("blk-call-waits", 1 << 20);
    let (mut front_end, _blk, _event) = held_up(&disk);
    assert_eq!(front_end.stop_queue(0).unwrap(), 2);
    drop(front_end);
    // Gone, and the descriptor is with the daemon alone.
    drop(held_up(&disk));
    disk.assert_serves();
    // There, and it lets nobody write.
    let _held_up = held_up(&disk);
    assert!(disk.daemon.terminate(disk::SOON).unwrap().status.success());
}

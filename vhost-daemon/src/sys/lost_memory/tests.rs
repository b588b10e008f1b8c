#![allow(
    clippy::unwrap_used,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a test fails by panicking, and maps what it touches"
)]

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{mmap, munmap};

use super::*;

const LEN: usize = 16 * 4096;

fn memfd() -> File {
    let fd = memfd_create("lost-memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, LEN as u64).unwrap();
    File::from(fd)
}

fn map(file: &File) -> *mut u8 {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let anywhere = ptr::null_mut();
    unsafe { mmap(anywhere, LEN, protection, MapFlags::SHARED, file, 0) }
        .unwrap()
        .cast()
}

#[test]
fn an_access_goes_on_and_the_loss_is_known_to_all_who_guard() {
    let file = memfd();
    let start = map(&file);
    let first = unsafe { Guarded::new(start, LEN) }.unwrap();
    let second = unsafe { Guarded::new(start, LEN) }.unwrap();
    assert_eq!(first.slot, second.slot);
    unsafe { start.add(5 * 4096).write_volatile(7) };
    assert!(!first.is_lost());
    ftruncate(&file, 4096).unwrap();
    assert!(!first.is_lost(), "nobody touched it yet");
    assert_eq!(unsafe { start.add(5 * 4096).read_volatile() }, 0);
    assert!(first.is_lost() && second.is_lost() && any_lost());
    unsafe { start.add(LEN - 1).write_volatile(9) };
    assert_eq!(unsafe { start.add(LEN - 1).read_volatile() }, 9);
    drop(first);
    let third = unsafe { Guarded::new(start, LEN) }.unwrap();
    assert!(third.is_lost(), "still guarded by the second");
    drop((second, third));
    let fresh = unsafe { Guarded::new(start, LEN) }.unwrap();
    assert!(!fresh.is_lost());
    drop(fresh);
    unsafe { munmap(start.cast(), LEN) }.unwrap();
}

#[test]
fn threads_that_lose_one_range_at_once_all_go_on() {
    for _ in 0..50 {
        let file = memfd();
        let start = map(&file);
        let guard = unsafe { Guarded::new(start, LEN) }.unwrap();
        ftruncate(&file, 0).unwrap();
        let address = start as usize;
        std::thread::scope(|scope| {
            for page in 0..4 {
                let guard = &guard;
                scope.spawn(move || {
                    let at = ptr::with_exposed_provenance_mut::<u8>(address + page * 4096);
                    unsafe { at.write_volatile(1) };
                    assert!(guard.is_lost());
                });
            }
        });
        drop(guard);
        unsafe { munmap(start.cast(), LEN) }.unwrap();
    }
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "ends its process"]
fn touches_lost_memory_that_nobody_guards() {
    let (guarded, other) = (memfd(), memfd());
    let guard = unsafe { Guarded::new(map(&guarded), LEN) }.unwrap();
    let start = map(&other);
    ftruncate(&other, 0).unwrap();
    unsafe { start.read_volatile() };
    drop(guard);
}

#[test]
fn what_is_not_guarded_still_ends_the_process() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("sys::lost_memory::tests::touches_lost_memory_that_nobody_guards")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status:?}");
}

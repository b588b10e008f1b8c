//! A state directory (`--state-dir`) that is full.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;
mod surviving;

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use lab::mounts;
use rustix::fs::statvfs;
use rustix::mount::{MountFlags, mount, mount_remount};
use share::SOON;
use surviving::Guest;

/// More nodes than the first part of the file of nodes has room for.
const FILES: usize = 9000;

fn in_memory(state: &Path) {
    mount("none", state, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// From now on there is no room for more than there is.
fn fill(state: &Path) {
    let status = statvfs(state).unwrap();
    let used = (status.f_blocks - status.f_bfree) * status.f_frsize;
    let size = CString::new(format!("size={used}")).unwrap();
    mount_remount(state, MountFlags::empty(), size.as_c_str()).unwrap();
}

/// The daemon is under its filters: a system call that is not allowed would end it.
#[test]
fn no_room_for_what_is_remembered_costs_the_recovery_and_no_request() {
    lab::need::root().unwrap();
    mounts::make_private().unwrap();
    let options = ["--seccomp", "kill"];
    let mut guest = Guest::start_in("survival-full", &options, in_memory);
    let state = guest.share.scratch.join("state");
    guest.session().create("first");
    fill(&state);
    for at in 0..FILES {
        File::create(guest.path(&format!("file{at}"))).unwrap();
    }
    for at in 0..FILES {
        guest.session().lookup(&format!("file{at}")).unwrap();
    }
    let said = "no room in --state-dir";
    guest.share.daemon.wait_stderr(said, SOON).unwrap();
    assert!(guest.share.daemon.is_running());
    let file = guest.session().create("new");
    assert_eq!(guest.session().write(file, 0, b"content").error, 0);
    let nodes = state.join("virtiofsd.nodes");
    let len = fs::metadata(&nodes).unwrap().len();
    assert_eq!(len, 4096 + (1 << 20), "no more than there is room for");

    // As a process of before has left it, that died between making the file longer and finding room.
    guest.die();
    let left = File::options().write(true).open(&nodes).unwrap();
    left.set_len(4096 + (3 << 20)).unwrap();
    guest.go_on();
    assert_eq!(fs::metadata(&nodes).unwrap().len(), len);
    assert_ne!(guest.session().read(file, 0, 7).error, 0, "begun anew");
    guest.share.daemon.terminate(SOON).unwrap();
    drop(guest);
    mounts_are_gone(&state);
}

/// What was mounted goes with the test.
fn mounts_are_gone(state: &Path) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!table.contains(state.to_str().unwrap()));
}

//! What happens to a system call that is not on a thread's list. Each case is a process of its own:
//! a filter cannot be taken off, and one of the outcomes is the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::thread;

use clap::ValueEnum;
use vhost_daemon::sandbox::seccomp::{Action, Call, Calls, Role, ThreadFilters};

const ACTION: &str = "SECCOMP_ACTION";

/// getppid(2): on no list.
fn forbidden() -> bool {
    rustix::process::getppid().is_some()
}

#[test]
#[ignore = "the other tests run it"]
fn a_queue_steps_out_of_line() {
    let action = std::env::var(ACTION).unwrap();
    let action = Action::from_str(&action, false).unwrap();
    const UMASK: &[Call] = &[Call::any(libc::SYS_umask, "on this device's list")];
    let more = Calls {
        queue: UMASK,
        ..Calls::default()
    };
    let filters = ThreadFilters::new(action, more).unwrap();
    // A thread of its own: the main thread's list is the test harness' no more than this one.
    let queue = thread::spawn(move || {
        filters.enter(Role::Queue).unwrap();
        filters.enter(Role::Queue).unwrap();
        rustix::process::umask(rustix::fs::Mode::empty());
        // The allocator may ask for it.
        let asked = std::fs::File::open("/proc/sys/vm/overcommit_memory").map(drop);
        assert_eq!(
            asked.map_err(|error| error.raw_os_error()),
            match action {
                Action::None => Ok(()),
                _ => Err(Some(libc::EACCES)),
            }
        );
        forbidden()
    });
    assert!(queue.join().unwrap());
    println!("went on");
}

fn with(action: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_queue_steps_out_of_line",
            "--ignored",
            "--nocapture",
        ])
        .env(ACTION, action)
        .output()
        .unwrap()
}

#[test]
fn it_is_named_and_ends_the_daemon() {
    let output = with("kill");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(159), "{said}");
    let expected = format!("a thread (queue) made system call {}", libc::SYS_getppid);
    assert!(said.contains(&expected), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("went on"));
}

#[test]
fn it_ends_the_daemon_by_a_signal() {
    let output = with("trap");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS));
}

#[test]
fn it_is_allowed() {
    for action in ["log", "none"] {
        let output = with(action);
        assert!(output.status.success(), "{action}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("went on"));
    }
}

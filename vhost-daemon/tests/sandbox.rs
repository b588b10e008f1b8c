//! What is left to a daemon that stays the process it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use lab::scratch::Scratch;
use vhost_daemon::sandbox::{Enclosure, EnclosureConfig, Files, SandboxError};

/// An ordinary user.
const NOBODY: u32 = 65534;

/// A program is not run while it is written, nor while another thread's child has it open.
static COPYING: Mutex<()> = Mutex::new(());

/// What the example says of itself, as root or as an ordinary user.
fn closed_in(test: &str, files: &str, user: Option<u32>) -> String {
    let said = closed_in_with(test, files, user, "0");
    assert!(said.contains("memory NotDumpable\n"), "{said}");
    said
}

/// With this limit for core files.
fn closed_in_with(test: &str, files: &str, user: Option<u32>, cores: &str) -> String {
    let _alone = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new(test).unwrap();
    let directory = scratch.dir("inside").unwrap();
    // target/debug/deps/sandbox-0123 -> target/debug/examples/closed_in
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/closed_in");
    // The build directory may be closed to others.
    let copy = scratch.join("closed_in");
    fs::copy(built, &copy).unwrap();
    for file in [directory.join("old"), directory.with_extension("beside")] {
        fs::write(&file, "content").unwrap();
        std::os::unix::fs::chown(&file, user, user).unwrap();
    }
    for owned in [scratch.path(), &directory] {
        std::os::unix::fs::chown(owned, user, user).unwrap();
    }
    // What the user's shell may have set is not what is tested.
    let mut command = Command::new("prlimit");
    command.arg(format!("--core={cores}")).arg(copy);
    command.arg(files).arg(&directory);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_powerless(said: &str) {
    let own = |kind: &str| {
        let here = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        said.contains(&format!("{kind} {}\n", here.display()))
    };
    assert!(own("mnt") && own("pid"), "{said}");
    assert!(!own("net") && !own("ipc"), "{said}");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert!(
            said.contains(&format!("{set}:\t0000000000000000\n")),
            "{said}"
        );
    }
    assert!(said.contains("NoNewPrivs:\t1\n"), "{said}");
}

fn assert_can(said: &str, can: &[&str], cannot: &[&str]) {
    for what in can {
        assert!(said.contains(&format!("can {what}\n")), "{what}: {said}");
    }
    for what in cannot {
        let refused = said.contains(&format!("cannot {what}: "));
        assert!(refused, "{what}: {said}");
    }
}

#[test]
fn a_daemon_that_opens_nothing_can_open_nothing() {
    lab::need::root().unwrap();
    for user in [None, Some(NOBODY)] {
        let said = closed_in("closed-none", "none", user);
        assert_powerless(&said);
        let rest = [
            "read", "write", "make", "bind", "mkdir", "link", "move", "run", "connect",
        ];
        assert_can(&said, &["remove"], &rest);
        assert_can(&said, &[], &["remove elsewhere"]);
    }
}

#[test]
fn who_wants_core_files_gets_them() {
    lab::need::root().unwrap();
    let said = closed_in_with("closed-core", "none", Some(NOBODY), "unlimited");
    assert!(said.contains("memory Dumpable\n"), "{said}");
}

#[test]
fn a_daemon_that_opens_on_demand_can_open_and_no_more() {
    lab::need::root().unwrap();
    let can = [
        "read",
        "write",
        "make",
        "bind",
        "remove",
        "remove elsewhere",
    ];
    let cannot = ["mkdir", "link", "move", "run", "connect"];
    let said = closed_in("closed-user", "on-demand", Some(NOBODY));
    assert_powerless(&said);
    assert_can(&said, &can, &cannot);
    // Root is told of files that belong to others.
    let said = closed_in("closed-root", "on-demand", None);
    assert!(said.contains("CapEff:\t0000000000000002\n"), "{said}");
    assert_can(&said, &can, &cannot);
}

/// Threads that are there already would stay outside.
#[test]
fn it_is_entered_before_there_are_threads() {
    lab::need::root().unwrap();
    let other = std::thread::spawn(std::thread::park);
    let enclosure = Enclosure {
        config: EnclosureConfig {
            isolates: true,
            seccomp: vhost_daemon::sandbox::seccomp::Action::None,
            capabilities: rustix::thread::CapabilitySet::empty(),
            required: rustix::thread::CapabilitySet::empty(),
        },
        files: Files::OnDemand,
    };
    let refused = enclosure.enter();
    assert!(
        matches!(refused, Err(SandboxError::Threads(2..))),
        "{refused:?}"
    );
    other.thread().unpark();
    other.join().unwrap();
}

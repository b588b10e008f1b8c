//! How a daemon is closed in, as the kernel tells: what docs/security.md promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::inside::Process;
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;
use lab::view::{assert_documented, view};
use rustix::process::{Pid, Signal, kill_process};
use share::session::Session;
use share::{PROGRAM, SOON, Share};

/// capabilities(7): CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, MKNOD and
/// SETFCAP.
const KEPT: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 27 | 1 << 31;
const CHOWN: u64 = 1 << 0;
const READ_SEARCH: u64 = 1 << 2;
const SYS_ADMIN: u64 = 1 << 21;

const NAMESPACES: [&str; 4] = ["mnt", "pid", "net", "ipc"];

fn us() -> Process {
    Process::of(std::process::id())
}

/// A daemon that is closed in: its socket is there before.
fn start(test: &str, options: &[&str]) -> Share {
    start_with(test, |daemon| daemon.args(options))
}

fn start_with(test: &str, options: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Share {
    let mut share = Share::start_with(test, options);
    share
        .daemon
        .wait_stderr("waiting for a front end", SOON)
        .unwrap();
    let outside = Process::of(share.daemon.pid());
    let deadline = Instant::now() + SOON;
    while outside.status("NoNewPrivs") == "0" {
        assert!(
            Instant::now() < deadline,
            "the process outside keeps its rights"
        );
        thread::sleep(Duration::from_millis(10));
    }
    share
}

#[test]
fn inside_there_is_nothing_but_the_share() {
    lab::need::root().unwrap();
    let share = start("fs-inside", &[]);
    fs::create_dir(share.directory.join("directory")).unwrap();
    let (_front_end, mut fs_driver) = share.mounted();
    let mut session = Session(&mut fs_driver);
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"content").error, 0);
    let inside = Process::serving(&share.daemon);
    inside.assert_powerless(KEPT);
    assert_eq!(inside.status("Groups"), "");
    for kind in NAMESPACES {
        assert_ne!(inside.namespace(kind), us().namespace(kind), "{kind}");
    }
    assert!(
        inside.status("NSpid").ends_with("\t1"),
        "the first of its pid namespace"
    );
    let interfaces = inside.text("net/dev");
    assert_eq!(
        interfaces.lines().count(),
        3,
        "two of headings and lo:\n{interfaces}"
    );

    let root = inside.path("root");
    let mut seen: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    seen.sort();
    assert_eq!(seen, ["directory", "file"]);
    let above = fs::metadata(root.join("..")).unwrap().ino();
    assert_eq!(above, fs::metadata(&share.directory).unwrap().ino());
    let mounts = inside.text("mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let options = mounts.split(' ').nth(5).unwrap();
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(
            options.split(',').any(|has| has == option),
            "{option}: {mounts}"
        );
    }
}

/// All of it, in words that are kept: docs/sandbox.
#[test]
fn what_it_can_still_do_is_documented() {
    lab::need::root().unwrap();
    let share = start("fs-view", &[]);
    let (_front_end, mut fs_driver) = share.mounted();
    let mut session = Session(&mut fs_driver);
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"content").error, 0);
    let names = [(share.directory.as_path(), "SHARE")];
    let inside = view(share.daemon.serving_pid().unwrap(), &names).unwrap();
    assert_documented("virtiofsd", &inside);
    let outside = view(share.daemon.pid(), &names).unwrap();
    assert_documented("virtiofsd-outside", &outside);
    let socket = share.scratch.join("keeper.sock");
    let keeper = Daemon::builder(PROGRAM).args(["keep", "--socket-path"]);
    let mut keeper = keeper.arg(&socket).spawn_listening(&socket, SOON).unwrap();
    keeper.wait_stderr("keeping", SOON).unwrap();
    let keeper = view(keeper.serving_pid().unwrap(), &[]).unwrap();
    assert_documented("virtiofsd-keep", &keeper);
}

/// Descriptors are the other way out.
#[test]
fn no_descriptor_leads_outside() {
    lab::need::root().unwrap();
    let left_open: OwnedFd = fs::File::open("/").unwrap().into();
    let share = start_with("fs-descriptors", |daemon| daemon.keep(left_open));
    let (_front_end, mut fs_driver) = share.mounted();
    let mut session = Session(&mut fs_driver);
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"content").error, 0);
    let inside = Process::serving(&share.daemon);
    let in_share = fs::metadata(&share.directory).unwrap().dev();
    let mut own_descriptors = 0;
    for (number, target) in inside.descriptors() {
        let path = inside.path("fd").join(&number);
        let name = target.to_string_lossy();
        let anonymous = [
            "socket:",
            "pipe:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
        ];
        if anonymous.iter().any(|kind| name.starts_with(kind))
            || name == "anon_inode:[io_uring]"
            || name.starts_with("/memfd:")
        {
            continue;
        }
        if fs::metadata(&path).unwrap().dev() == in_share {
            continue;
        }
        // Its own /proc/self/fd: nothing is above it.
        own_descriptors += 1;
        assert!(
            path.join(&number).symlink_metadata().is_ok(),
            "{number} is {name}"
        );
        let (here, above) = (
            fs::metadata(&path).unwrap(),
            fs::metadata(path.join("..")).unwrap(),
        );
        assert_eq!(
            (here.dev(), here.ino()),
            (above.dev(), above.ino()),
            "{number} is {name}"
        );
    }
    assert_eq!(own_descriptors, 1);
}

/// The process outside waits and can do no more.
#[test]
fn the_process_outside_has_nothing_open() {
    lab::need::root().unwrap();
    let share = start("fs-outside", &[]);
    let outside = Process::of(share.daemon.pid());
    // CAP_DAC_OVERRIDE to remove sockets' files, CAP_KILL to pass signals on.
    assert_eq!(outside.capabilities("CapEff"), 1 << 1 | 1 << 5);
    assert_eq!(outside.status("NoNewPrivs"), "1");
    let open = outside.descriptors();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].1.to_string_lossy().starts_with("pipe:"), "{open:?}");
}

/// A thread's filter comes on top of the main thread's.
#[test]
fn every_thread_that_serves_has_a_list_of_its_own() {
    lab::need::root().unwrap();
    let scratch = Scratch::new("fs-threads").unwrap();
    let metrics = scratch.join("metrics");
    let share = start_with("fs-threads", |d| d.arg("--metrics-socket").arg(&metrics));
    let (_front_end, mut fs_driver) = share.mounted();
    Session(&mut fs_driver).create("file");
    let serving = Process::serving(&share.daemon);
    let deadline = Instant::now() + SOON;
    // A thread has its name, and then its list, once it runs.
    let threads = loop {
        let threads = serving.threads("Seccomp_filters");
        let signals = threads.iter().find(|(name, _)| name == "signals");
        if signals.is_some_and(|(_, filters)| filters == "2") || Instant::now() > deadline {
            break threads;
        }
    };
    let mut known: Vec<_> = threads.iter().map(|(name, _)| name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    for (name, filters) in &threads {
        let own_list = match name.as_str() {
            "virtiofsd" | "vring_worker" => false,
            "session" | "relay-in" | "relay-out" | "signals" | "metrics" | "queue1" | "helper" => {
                true
            }
            // A kernel thread of an io_uring: it has its creator's.
            name if name.starts_with("iou-") => continue,
            name => panic!("a thread called {name} that nobody listed"),
        };
        assert_eq!(filters, if own_list { "2" } else { "1" }, "{name}");
    }
    for expected in [
        "session",
        "relay-in",
        "relay-out",
        "signals",
        "metrics",
        "queue1",
        "helper",
    ] {
        assert!(known.contains(&expected), "{known:?}");
    }
}

#[test]
fn a_read_only_share_cannot_be_written_by_the_process_either() {
    lab::need::root().unwrap();
    let share = start("fs-ro-mount", &["--readonly"]);
    let mounts = Process::serving(&share.daemon).text("mountinfo");
    let options = mounts.split(' ').nth(5).unwrap();
    assert!(options.starts_with("ro,"), "{mounts}");
    share.assert_serves();
}

#[test]
fn chroot_changes_the_root_and_no_namespace() {
    lab::need::root().unwrap();
    let share = start("fs-chroot", &["--sandbox", "chroot"]);
    let (_front_end, mut fs_driver) = share.mounted();
    let mut session = Session(&mut fs_driver);
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"content").error, 0);
    let inside = Process::serving(&share.daemon);
    inside.assert_powerless(KEPT);
    assert_eq!(fs::read_link(inside.path("root")).unwrap(), share.directory);
    assert_eq!(fs::read_link(inside.path("cwd")).unwrap(), share.directory);
    for kind in NAMESPACES {
        assert_eq!(inside.namespace(kind), us().namespace(kind), "{kind}");
    }
    assert_ends_clean(share);
}

#[test]
fn none_leaves_the_hosts_files_in_reach_and_takes_the_rest() {
    lab::need::root().unwrap();
    let share = start("fs-none", &["--sandbox", "none"]);
    let (_front_end, mut fs_driver) = share.mounted();
    Session(&mut fs_driver).create("file");
    assert_eq!(share.daemon.serving_pid().unwrap(), share.daemon.pid());
    let inside = Process::serving(&share.daemon);
    inside.assert_powerless(KEPT);
    assert_eq!(fs::read_link(inside.path("root")).unwrap(), Path::new("/"));
    assert_ends_clean(share);
}

/// The same with all of it off, for what `--seccomp none` is worth.
#[test]
fn capabilities_and_filters_are_as_asked() {
    lab::need::root().unwrap();
    let with = |options: &[&str]| start("fs-caps", options);
    let share = with(&["--modcaps=+sys_admin:-chown"]);
    Process::serving(&share.daemon).assert_powerless((KEPT | SYS_ADMIN) & !CHOWN);
    let share = with(&["--inode-file-handles=never"]);
    Process::serving(&share.daemon).assert_powerless(KEPT & !READ_SEARCH);
    let share = with(&["--seccomp", "none"]);
    assert_eq!(Process::serving(&share.daemon).status("Seccomp"), "0");
    for action in ["log", "trap"] {
        let share = with(&["--seccomp", action]);
        assert_eq!(Process::serving(&share.daemon).status("Seccomp"), "2");
        share.assert_serves();
    }
}

/// The daemon stops when it is told to, whichever process hears of it, and leaves nothing behind.
fn assert_ends_clean(mut share: Share) {
    let exit = share.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!share.socket.exists(), "the socket's file is left behind");
}

fn gone(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_err() || state.is_ok_and(|stat| stat.contains(") Z "))
}

fn wait_gone(pid: u32) {
    let deadline = Instant::now() + SOON;
    while !gone(pid) {
        assert!(Instant::now() < deadline, "process {pid} goes on");
        thread::sleep(Duration::from_millis(10));
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn both_processes_end_together() {
    lab::need::root().unwrap();
    let scratch = Scratch::new("fs-ends").unwrap();
    let metrics = scratch.join("metrics");
    let start = || start_with("fs-ends", |d| d.arg("--metrics-socket").arg(&metrics));

    let share = start();
    assert!(metrics.exists());
    let inner = share.daemon.serving_pid().unwrap();
    assert_ends_clean(share);
    assert!(gone(inner) && !metrics.exists());

    let mut share = start();
    let inner = share.daemon.serving_pid().unwrap();
    kill(inner, Signal::TERM);
    let exit = share.daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{:?} {}", exit.status, exit.stderr);
    assert!(!share.socket.exists() && !metrics.exists());

    let mut share = start();
    let inner = share.daemon.serving_pid().unwrap();
    kill(inner, Signal::KILL);
    let exit = share.daemon.wait_exit(SOON).unwrap();
    assert_eq!(exit.status.signal(), Some(9), "{}", exit.stderr);
    assert!(
        exit.stderr.contains("was ended by a signal"),
        "{}",
        exit.stderr
    );
    assert!(!share.socket.exists() && !metrics.exists());

    let share = start();
    let inner = share.daemon.serving_pid().unwrap();
    kill(share.daemon.pid(), Signal::KILL);
    wait_gone(inner);
}

/// `--once`: the inner process ends by itself, and the outer one says so.
#[test]
fn an_error_inside_is_the_daemons() {
    lab::need::root().unwrap();
    let scratch = Scratch::new("fs-inner-error").unwrap();
    let socket = scratch.join("s");
    // procfs has no file handles; that is found out inside.
    let mut daemon = Daemon::builder(PROGRAM)
        .args(["--shared-dir", "/proc", "--inode-file-handles=mandatory"])
        .arg("--socket-path")
        .arg(&socket)
        .spawn()
        .unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    assert!(
        exit.stderr.contains("cannot be opened by file handle"),
        "{}",
        exit.stderr
    );
    assert!(!socket.exists());
}

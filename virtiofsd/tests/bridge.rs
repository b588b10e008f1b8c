//! Programs of the host on our daemon, mounted on the host's own kernel by the lab's bridge.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod mounted;
mod share;

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use lab::need;
use mounted::{Mounted, is_mounted};
use share::SOON;

const SCRIPT_FILES: u32 = 300;

/// Runs a shell script in `directory`, without what differs from user to user.
fn sh(directory: &Path, script: &str) -> Output {
    Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

fn said(directory: &Path, script: &str) -> String {
    let output = sh(directory, script);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a script on the mount and on a bare directory: it says the same and leaves the same.
fn same(mounted: &Mounted, script: &str) {
    const LEFT: &str = "find . -type f -print0 | sort -z | xargs -0 -r sha256sum; \
        find . ! -type d -printf '%P %y %m %U %G %n %s %l\\n' | sort; \
        find . -type d -printf '%P %m %U %G\\n' | sort";
    let bare = mounted.share.scratch.dir("bare").unwrap();
    assert_eq!(said(&mounted.at, script), said(&bare, script), "{script}");
    let (there, here) = (said(&mounted.at, LEFT), said(&bare, LEFT));
    assert_eq!(there, here, "{script}");
    // The daemon's own directory shows what the mount shows.
    assert_eq!(said(&mounted.share.directory, LEFT), here, "{script}");
    fs::remove_dir_all(&bare).unwrap();
}

#[test]
fn programs_find_and_leave_what_they_do_on_the_bare_directory() {
    need::program("git").unwrap();
    let mut mounted = Mounted::start("bridge-programs", &[], 2);
    assert!(mounted.bridge.as_ref().unwrap().init().minor >= 38);
    let tree = mounted.share.scratch.dir("tree").unwrap();
    said(
        &tree,
        &format!(
            "for n in $(seq {SCRIPT_FILES}); do mkdir -p d$((n % 7))/e$((n % 3)); \
             head -c $((n * 997 % 20000)) /dev/urandom > d$((n % 7))/e$((n % 3))/f$n; done; \
             ln -s d1/e1 link; ln d1/e1/f1 hard; chmod 4750 hard; truncate -s 3M hole"
        ),
    );
    same(
        &mounted,
        &format!("cp -a {}/. .; rm -r d3; mv d4 d5/d4", tree.display()),
    );
    said(&mounted.at, "rm -r ./*");
    same(
        &mounted,
        "export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
         git init -q -b main . && git config user.name a && git config user.email a@b
         for n in $(seq 100); do echo $n > file$n; done
         git add . && git commit -qm first && echo more >> file7 && rm file8
         git status --porcelain; git log --format=%H; git fsck
         rm -rf .git; ls",
    );
    mounted.unmount();
    let before = said(&mounted.share.directory, "ls");
    // A daemon serves one mount after another.
    mounted.mount(1);
    assert_eq!(said(&mounted.at, "ls"), before);
    mounted.unmount();
}

#[test]
fn fio_reads_back_what_it_wrote() {
    let fio = need::program("fio").unwrap();
    for (options, direct) in [(["--cache", "auto"], "0"), (["--cache", "never"], "1")] {
        let mut mounted = Mounted::start("bridge-fio", &options, 2);
        let output = Command::new(&fio)
            .args([
                "--name=verify",
                "--rw=randwrite",
                "--bsrange=4k-1m",
                "--size=16m",
            ])
            .args([
                "--ioengine=libaio",
                "--iodepth=16",
                "--numjobs=2",
                "--verify=crc32c",
            ])
            .args(["--verify_fatal=1", "--verify_state_save=0"])
            .arg(format!("--direct={direct}"))
            .arg(format!("--directory={}", mounted.at.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options:?}: {said}");
        mounted.unmount();
    }
}

/// Removing thousands of files makes as many `FORGET`s: none may be lost, or nodes stay.
#[test]
fn the_daemon_forgets_what_the_kernel_forgets() {
    let mut mounted = Mounted::start("bridge-forget", &["--max-open", "100"], 1);
    said(
        &mounted.at,
        "seq 3000 | xargs touch; sync; ls -l | wc -l; rm -r ./*",
    );
    assert_eq!(fs::read_dir(&mounted.at).unwrap().count(), 0);
    let fds = || {
        fs::read_dir(format!("/proc/{}/fd", mounted.share.daemon.pid()))
            .unwrap()
            .count()
    };
    assert!(fds() < 300, "{} descriptors", fds());
    mounted.unmount();
}

/// A daemon that dies takes its mount with it: no program waits for ever, and the end is told.
#[test]
fn nobody_hangs_when_the_daemon_dies() {
    let mut mounted = Mounted::start("bridge-death", &[], 2);
    let path = mounted.at.join("file");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let mut file = fs::File::open(&path).unwrap();
    mounted.share.daemon.kill().unwrap();
    let started = Instant::now();
    let failed = loop {
        let mut byte = [0];
        match file
            .read(&mut byte)
            .and_then(|_| fs::metadata(mounted.at.join("other")))
        {
            Err(error) if error.kind() != ErrorKind::NotFound => break error,
            _ => assert!(started.elapsed() < SOON),
        }
        thread::sleep(Duration::from_millis(5));
    };
    let known = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO];
    assert!(known.contains(&failed.raw_os_error().unwrap()), "{failed}");
    let told = mounted.bridge.take().unwrap().unmount().unwrap_err();
    assert!(told.to_string().contains("daemon has gone"), "{told}");
    assert!(!is_mounted(&mounted.at));
}

/// Also when a test panics, and while a program has a file open.
#[test]
fn nothing_stays_mounted_after_a_panic() {
    let mounted = Mounted::start("bridge-panic", &[], 1);
    let at = mounted.at.clone();
    fs::write(at.join("file"), "text").unwrap();
    let open = fs::File::open(at.join("file")).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _bridge = mounted.bridge;
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    assert!(!is_mounted(&at));
    drop(open);
}

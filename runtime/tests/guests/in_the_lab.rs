//! `ringside run` on our VMM, with the options that other tests give it on QEMU: in the lab, whose KVM is native.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lab::machine::Machine;
use lab::traces::Traces;
use rustix::process::Signal;

use crate::devices::{announced_port, fetch};
use crate::support::{Bench, build_programs, eventually, signal, text, wait_for_file};

/// A run takes ten seconds there, and on a busy host many times as long.
const LIMIT: Duration = Duration::from_secs(500);
/// What a guest is sent.
const SENT: usize = 1 << 20;

#[test]
fn a_run_on_our_vmm_in_the_lab() {
    build_programs();
    Machine::of_test("in_the_lab::inside")
        .env("RINGSIDE_TEST_PREBUILT", "1")
        .limit(LIMIT)
        .run()
        .unwrap()
        .passed();
}

#[test]
#[ignore = "runs in the lab's machine, started by the test above"]
fn inside() {
    let before = Traces::now();
    {
        let bench = Bench::new();
        let _logs = Logs(bench.path("logs"));
        every_device_and_a_shared_root(&bench);
        a_killed_vmm_is_named(&bench);
        a_root_on_a_disk(&bench);
    }
    eventually("something is left", || {
        let now = Traces::now();
        let left = now.since(&before);
        left.iter().for_each(|it| eprintln!("left: {it}"));
        left.is_empty()
    });
}

/// `auto` is our VMM here.
fn every_device_and_a_shared_root(bench: &Bench) {
    let sent = lab::pattern(1, SENT);
    let page = "x".repeat(300_000);
    fs::write(bench.root().join("www/index.html"), &page).unwrap();
    let (disk, logs) = (bench.path("data.img"), bench.path("logs"));
    File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    let options = ["--memory", "256M", "--net", "--publish", "0:8000", "--disk"];
    let script = "cat >/tmp/sent; cat /tmp/sent >/dev/disk/by-id/virtio-disk0; sync; echo errors >&2; \
                  httpd -p 8000 -h /www; touch /tmp/serves; until [ -e /tmp/fetched ]; do sleep 0.1; done; \
                  cat /tmp/sent; exit 7";
    let mut child = bench
        .ringside(&options)
        .arg(&disk)
        .arg("--keep-logs")
        .arg(&logs)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stderr(File::create(bench.path("messages")).unwrap())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), sent.clone());
    let writer = thread::spawn(move || stdin.write_all(&input));
    wait_for_file(&bench.root().join("tmp/serves"), &mut child);
    writer.join().unwrap().unwrap();
    // It fails where another hypervisor was chosen.
    bench.process("ringside-vmm");
    let answer = fetch(announced_port(bench));
    assert!(answer.ends_with(&page), "the page came back damaged");
    fs::write(bench.root().join("tmp/fetched"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    let messages = fs::read_to_string(bench.path("messages")).unwrap();
    assert_eq!(output.status.code(), Some(7), "{messages}");
    assert!(output.stdout == sent, "standard output differs");
    assert!(messages.ends_with("errors\n"), "{messages}");
    let shared = fs::read(bench.root().join("tmp/sent")).unwrap();
    assert!(shared == sent, "the shared file differs");
    assert!(fs::read(&disk).unwrap()[..SENT] == sent, "the disk differs");
    bench.assert_nothing_left();
}

fn a_killed_vmm_is_named(bench: &Bench) {
    let logs = bench.path("logs").display().to_string();
    let options = [
        "--hypervisor",
        "vmm",
        "--memory",
        "256M",
        "--keep-logs",
        &logs,
    ];
    let script = "touch /tmp/runs; while :; do sleep 0.1; done";
    let mut child = bench
        .ringside(&options)
        .args(["--", "sh", "-c", script])
        .spawn()
        .unwrap();
    wait_for_file(&bench.root().join("tmp/runs"), &mut child);
    signal(bench.process("ringside-vmm"), Signal::KILL);
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(
        message.contains("the guest died: ringside-vmm ended (signal: 9"),
        "{message}"
    );
    bench.assert_nothing_left();
}

/// The image is made, and clean after the run.
fn a_root_on_a_disk(bench: &Bench) {
    let (image, logs) = (bench.path("root.img"), bench.path("logs"));
    let (image, logs) = (image.to_str().unwrap(), logs.to_str().unwrap());
    let machine = ["--hypervisor", "vmm", "--memory", "256M"];
    let disk = ["--root", "block", "--image", image, "--keep-logs", logs];
    let ran = bench.script(
        &[&machine[..], &disk].concat(),
        "echo kept >/tmp/file; cat /tmp/file; exit 3",
    );
    assert_eq!(text(&ran.stdout), "kept\n", "{}", text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(3));
    let check = Command::new("e2fsck")
        .args(["-f", "-n", image])
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", text(&check.stdout));
    let request = ["-R", "cat /tmp/file", image];
    let kept = Command::new("debugfs").args(request).output().unwrap();
    assert_eq!(text(&kept.stdout), "kept\n");
    bench.assert_nothing_left();
}

/// What the parts of the last run said, for a failed test's reader.
struct Logs(PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let log = fs::read(entry.path()).unwrap_or_default();
            eprintln!("--- {} ---\n{}", entry.path().display(), text(&log));
        }
    }
}

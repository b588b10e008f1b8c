//! However a run ends, nothing of it is left, and what ended it is named.

use std::io::Read;
use std::process::Child;

use crate::support::{Bench, eventually, signal, text, wait_for_file};
use rustix::process::Signal;

/// A guest whose command surely runs, for ever.
fn long_run(bench: &Bench) -> Child {
    let script = "trap 'exit 42' USR1; touch /tmp/runs; while :; do sleep 0.1; done";
    let mut child = bench
        .ringside(&[])
        .args(["--", "sh", "-c", script])
        .spawn()
        .unwrap();
    wait_for_file(&bench.root().join("tmp/runs"), &mut child);
    child
}

fn id(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn message_after_end(mut child: Child) -> String {
    let mut bytes = Vec::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125), "{}", text(&bytes));
    text(&bytes)
}

#[test]
fn ctrl_c_ends_the_command_and_everything() {
    let bench = Bench::new();
    let mut child = long_run(&bench);
    signal(id(&child), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 2));
    bench.assert_nothing_left();
}

#[test]
fn ctrl_c_while_booting_ends_everything() {
    let bench = Bench::new();
    let mut child = bench.ringside(&[]).args(["--", "true"]).spawn().unwrap();
    eventually("QEMU does not start", || bench.processes().len() > 2);
    signal(id(&child), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 2));
    bench.assert_nothing_left();
}

#[test]
fn a_killed_daemon_is_named() {
    let bench = Bench::new();
    let child = long_run(&bench);
    signal(bench.process("virtiofsd"), Signal::KILL);
    let message = message_after_end(child);
    assert!(message.contains("virtiofsd ended (signal: 9"), "{message}");
    bench.assert_nothing_left();
}

#[test]
fn a_killed_hypervisor_is_named() {
    let bench = Bench::new();
    let child = long_run(&bench);
    signal(bench.process("qemu-system-x86_64"), Signal::KILL);
    let message = message_after_end(child);
    assert!(message.contains("the guest died: qemu ended"), "{message}");
    bench.assert_nothing_left();
}

#[test]
fn a_kernel_panic_shows_the_console() {
    let bench = Bench::new();
    let output = bench.script(&[], "echo c > /proc/sysrq-trigger; sleep 100");
    assert_eq!(output.status.code(), Some(125));
    let message = text(&output.stderr);
    assert!(
        message.contains("the guest died") && message.contains("sysrq"),
        "{message}"
    );
    bench.assert_nothing_left();
}

#[test]
fn even_sigkill_leaves_no_process_and_the_next_run_tidies_up() {
    let bench = Bench::new();
    let mut child = long_run(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("a process outlived ringside", || {
        bench.processes().is_empty()
    });
    assert!(bench.script(&[], "true").status.success());
    bench.assert_nothing_left();
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let bench = Bench::new();
    let image = bench.path("in-use.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let image = image.to_str().unwrap();
    let output = bench.script(&["--disk", image, "--disk", image], "true");
    assert_eq!(output.status.code(), Some(125));
    let message = text(&output.stderr);
    assert!(
        message.contains("vhost-user-blk-disk") && message.contains("in use"),
        "{message}"
    );
    bench.assert_nothing_left();
}

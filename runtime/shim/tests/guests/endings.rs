//! Whoever is killed: the task has ended for containerd, and nothing is left.

use rustix::process::Signal;

use crate::containerd::{Containerd, eventually, kill};

/// The parts of a pod without a network.
const PARTS: [&str; 3] = ["qemu", "virtiofsd", "vhost-user-vsock"];

#[test]
fn whatever_part_is_killed_the_task_has_ended() {
    let containerd = Containerd::start("shim-parts");
    for part in PARTS {
        containerd.run_on("x", &[]);
        kill(containerd.part("x", part), Signal::KILL);
        eventually("the task goes on without its machine", || {
            containerd.state("x").as_deref() == Some("STOPPED")
        });
        let removed = containerd.ctr(&["task", "rm", "x"]);
        assert!(removed.err.contains("exit code 137"), "{part}: {removed:?}");
        containerd.ctr(&["container", "rm", "x"]).ok();
        containerd.assert_nothing_left();
    }
}

/// The guest's first process cannot be killed from within, but its kernel can.
#[test]
fn a_guest_that_panics_has_ended() {
    let containerd = Containerd::start("shim-panic");
    containerd.run_on("x", &["--cap-add", "CAP_SYS_ADMIN"]);
    let mut exec = containerd.background(
        &["task", "exec", "--exec-id", "e", "x", "sleep", "100000"],
        &containerd.scratch.join("out"),
    );
    eventually("no further process", || {
        containerd.exec("x", "ps | grep -c 'sleep 10000[0]'").text() == "2\n"
    });
    // The container's own proc has it read-only.
    let panic = "mount -t proc proc /tmp && echo c >/tmp/sysrq-trigger";
    containerd.exec("x", panic);
    assert_eq!(exec.wait().unwrap().code(), Some(137));
    eventually("the task goes on without its machine", || {
        containerd.state("x").as_deref() == Some("STOPPED")
    });
    let removed = containerd.ctr(&["task", "rm", "x"]);
    assert!(removed.err.contains("exit code 137"), "{removed:?}");
    containerd.ctr(&["container", "rm", "x"]).ok();
    containerd.assert_nothing_left();
}

#[test]
fn a_killed_shim_takes_all_along() {
    let containerd = Containerd::start("shim-killed");
    containerd.run_on("x", &[]);
    kill(containerd.shim("x"), Signal::KILL);
    eventually("containerd does not notice", || {
        containerd.state("x").is_none()
    });
    containerd.assert_nothing_left();
    // The name can be used again.
    containerd.ctr(&["container", "rm", "x"]).ok();
    let ran = containerd.run("x", &[], &["echo", "again"]);
    assert_eq!(ran.ok(), "again\n");
    containerd.assert_nothing_left();
}

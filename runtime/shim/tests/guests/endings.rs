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

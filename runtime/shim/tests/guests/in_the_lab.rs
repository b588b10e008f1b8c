//! containerd's pods on our VMM: in the lab, whose KVM is native.

use std::process::Command;
use std::time::Duration;

use lab::machine::Machine;
use lab::process::binary;
use lab::scratch::Scratch;
use lab::traces::Traces;
use rustix::process::Signal;

use crate::containerd::{Containerd, eventually, kill};
use crate::events::Events;
use crate::net::Net;
use crate::{image, life, limits, programs, streams, volumes};

/// What a pod's network needs of the machine's kernel (docs/runtime-network.md).
const MODULES: [&str; 3] = ["sch_ingress", "cls_u32", "act_mirred"];
/// containerd, a guest and its daemons, each a build for debugging.
const MEMORY_MIB: u32 = 3072;
const LIMIT: Duration = Duration::from_secs(500);
/// Bytes through standard output: a fifth of what they are on the host, where nothing is translated twice over.
const FLOOD: usize = 20 << 20;
/// Bytes in and out of a process.
const ECHO: usize = 1 << 20;

#[test]
fn pods_on_our_vmm_in_the_lab() {
    programs::need();
    binary("ringside-vmm").unwrap();
    // Here, where umoci is ten times as quick.
    let scratch = Scratch::new("shim-lab").unwrap();
    let tar = image::build(&scratch);
    let machine = Machine::of_test("in_the_lab::inside")
        .env(image::PREBUILT, tar)
        .memory_mib(MEMORY_MIB)
        .limit(LIMIT);
    let machine = MODULES.into_iter().fold(machine, Machine::module);
    machine.run().unwrap().passed();
}

#[test]
#[ignore = "runs in the lab's machine, started by the test above"]
fn inside() {
    hold_an_ingress_qdisc();
    let net = Net::new();
    let before = Traces::now();
    {
        let containerd = Containerd::start("shim-vmm");
        a_pod(&containerd, &net);
        a_killed_vmm(&containerd);
        let links = net.inside(&["link"]);
        assert!(!links.contains("tap"), "a tap is left: {links}");
        a_container(&containerd);
        containerd.assert_nothing_left();
    }
    eventually("something is left", || {
        let now = Traces::now();
        let left = now.since(&before);
        left.iter().for_each(|it| eprintln!("left: {it}"));
        left.is_empty()
    });
}

/// The machine's first one patches its kernel's text, which QEMU's translator may not survive under load
/// (docs/lab.md).
fn hold_an_ingress_qdisc() {
    let orders = [
        [
            "ip", "link", "add", "hold0", "type", "veth", "peer", "name", "hold1",
        ]
        .as_slice(),
        &["tc", "qdisc", "add", "dev", "hold0", "ingress"],
    ];
    for order in orders {
        let done = Command::new(order[0]).args(&order[1..]).status().unwrap();
        assert!(done.success(), "{order:?}");
    }
}

/// Two containers, files, network, processes; one of these wants too much memory, daemons are killed, and a disk
/// comes and goes.
fn a_pod(containerd: &Containerd, net: &Net) {
    let events = Events::follow(containerd);
    life::start(containerd, net);
    // There is such a part: `auto` has chosen it.
    containerd.part("a", "ringside-vmm");
    life::files(containerd);
    limits::out_of_memory(containerd, &events);
    drop(events);
    life::network(containerd);
    life::a_killed_daemon(containerd);
    a_killed_virtiofsd(containerd);
    volumes::raw_block(containerd);
    streams::flood(containerd, FLOOD);
    streams::echo(containerd, "b", ECHO);
}

/// Under a process that writes, which sees no error.
fn a_killed_virtiofsd(containerd: &Containerd) {
    let killed = containerd.part("a", "virtiofsd");
    std::thread::scope(|scope| {
        let script = "for i in $(seq 20); do echo $i >>/data/lines || exit 1; sleep 0.1; done";
        let writes = scope.spawn(|| containerd.exec("a", script));
        let lines = containerd.scratch.join("data/lines");
        eventually("nothing is written", || lines.exists());
        kill(killed, Signal::KILL);
        eventually("it is not started again", || {
            ![0, killed].contains(&containerd.part("a", "virtiofsd"))
        });
        writes.join().unwrap().ok();
        let written = std::fs::read_to_string(lines).unwrap();
        let expected: String = (1..=20).map(|line| format!("{line}\n")).collect();
        assert_eq!(written, expected);
    });
}

fn a_killed_vmm(containerd: &Containerd) {
    kill(containerd.part("a", "ringside-vmm"), Signal::KILL);
    for id in ["b", "a"] {
        eventually("a task goes on without its machine", || {
            containerd.state(id).as_deref() == Some("STOPPED")
        });
        let removed = containerd.ctr(&["task", "rm", id]);
        assert!(removed.err.contains("exit code 137"), "{id}: {removed:?}");
        containerd.ctr(&["container", "rm", id]).ok();
    }
    containerd.assert_nothing_left();
}

/// Its name was a killed pod's.
fn a_container(containerd: &Containerd) {
    let script = "echo out; echo err >&2; exit 7";
    let ran = containerd.run("a", &[], &["sh", "-c", script]);
    assert_eq!((ran.text().as_str(), ran.err.as_str()), ("out\n", "err\n"));
    assert_eq!(ran.code, 7);
}

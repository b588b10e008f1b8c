//! The scenarios with guests as a user runs them: each once, tiny.

use std::process::Command;

use lab::process::binary;
use ringside_perf::findings::{Findings, Group};
use tempfile::TempDir;

use crate::places::{PROGRAM, processes_naming};

fn smoke(scenario: &str, options: &[&str]) -> Findings {
    lab::need::root().unwrap();
    let results = TempDir::new().unwrap();
    let json = results.path().join("found.json");
    let output = Command::new(PROGRAM)
        .args([scenario, "--smoke"])
        .args(options)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    ringside_perf::findings::load(&json).unwrap()
}

fn group<'a>(found: &'a Findings, name: &str) -> &'a Group {
    let all: Vec<_> = found.groups.iter().map(|it| &it.name).collect();
    let group = found.groups.iter().find(|it| it.name == name);
    group.unwrap_or_else(|| panic!("no {name} among {all:?}"))
}

/// Who was measured; what failed fails the test.
fn measured(group: &Group, figure: usize) -> Vec<&str> {
    let entries = group.figures[figure].entries.iter();
    let who = entries.map(|it| {
        assert_eq!(it.failure, None, "{}", it.who);
        assert!(it.samples.iter().all(|value| value.is_finite()), "{it:?}");
        it.who.as_str()
    });
    who.collect()
}

/// dd, fio, nginx under ab in one guest. 9p needs another kernel than the one that tests have.
#[test]
fn documents_in_a_guest() {
    for program in ["virtiofsd", "vhost-user-blk"] {
        binary(program).unwrap();
    }
    let places = TempDir::new_in("/dev/shm").unwrap();
    let shared = format!("--tmpfs={}", places.path().display());
    let loads = ["dd-write", "nginx", "fio-4k-d32x16-randread"];
    let only = format!("--only={}", loads.join(","));
    let found = smoke("documents", &[&shared, &only]);
    assert_eq!(found.verdicts.len(), 10);
    for load in loads {
        let who = measured(group(&found, load), 0);
        for wanted in [
            "ringside, virtiofs",
            "qemu virtiofsd, virtiofs",
            "ringside, block",
            "qemu-storage-daemon, block",
            "plain, memory disk of the guest",
        ] {
            assert!(who.contains(&wanted), "{wanted} is not among {who:?}");
        }
    }
    assert!(std::fs::read_dir(&places).unwrap().next().is_none());
    assert!(processes_naming(places.path()).is_empty());
}

/// Containers of ours and runc's, what a pod holds, and two pods at once.
#[test]
fn pods_of_guests() {
    for program in ["virtiofsd", "vhost-user-blk", "containerd-shim-ringside-v2"] {
        binary(program).unwrap();
    }
    let found = smoke("start", &[]);
    let who = measured(group(&found, "start"), 0);
    assert!(who.contains(&"runc"), "{who:?}");
    let ours = who.iter().find(|it| it.starts_with("ringside")).unwrap();
    let memory = group(&found, &format!("memory of a pod, {ours}"));
    let parts = measured(memory, 0);
    for part in ["shim", "virtiofsd", "all parts"] {
        assert!(parts.contains(&part), "{part} is not among {parts:?}");
    }
    let guest = &memory.figures[2].entries;
    let all = guest.iter().find(|it| it.who == "all parts").unwrap();
    assert!(all.samples[0] > 10_000.0, "{guest:?}");
    let found = smoke("growth", &[]);
    assert_eq!(
        measured(group(&found, "pods at once"), 0),
        ["1 pod", "2 pods"]
    );
    let queues = group(&found, "a disk's daemon");
    assert_eq!(measured(queues, 0).len(), 4);
    let threads = &queues.figures[1].entries;
    assert!(threads[3].samples[0] > threads[0].samples[0], "{threads:?}");
}

//! `ringside-perf fs` as a user runs it: every row is there, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod places;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::process::{Daemon, binary};
use places::{PROGRAM, Places, processes_naming};
use ringside_perf::scenario::fs::{Cache, Outcome, Report, Role, Row, Target, Workload};
use rustix::process::Signal;

fn arguments(places: &Places) -> Vec<String> {
    let mut arguments = places.arguments("fs", &binary("virtiofsd").unwrap());
    // Nobody has to install a peer for a test: one that is missing is told in its rows.
    arguments.push("--rust-virtiofsd=/no-such-virtiofsd".into());
    arguments
}

fn measure(places: &Places, options: &[&str]) -> (Report, String) {
    places.measure(arguments(places), options)
}

fn seats(rows: &[Row], workload: &str) -> BTreeSet<String> {
    let rows = rows.iter().filter(|row| row.name == workload);
    rows.map(|row| format!("{} {}", row.contestant, row.cache))
        .collect()
}

fn assert_measured(row: &Row) {
    let place = format!(
        "{}/{} {} {}",
        row.target, row.name, row.contestant, row.cache
    );
    let Outcome::Measured {
        samples,
        system_calls,
        ..
    } = &row.outcome
    else {
        panic!("{place}: {:?}", row.outcome);
    };
    assert!(
        samples.iter().all(|it| it.operations > 0 && it.rate > 0.0),
        "{place}"
    );
    let daemon = row.cache != Cache::Host;
    assert_eq!(system_calls.is_some(), daemon, "{place}");
    for sample in samples {
        assert_eq!(
            sample.cpu_us.is_some_and(|cpu| cpu > 0.0),
            daemon,
            "{place}"
        );
        assert_eq!(
            sample.bridge_us.is_some_and(|cpu| cpu > 0.0),
            daemon,
            "{place}"
        );
    }
}

fn wanted(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&it| it.to_owned()).collect()
}

/// Each kind of load: fio, dd, small files, a program over a tree.
#[test]
fn everybody_has_a_row_for_each_kind_of_load() {
    lab::need::root().unwrap();
    let places = Places::new();
    let loads = [
        "4k-randread-2j-d16",
        "dd-4k-write",
        "open-read",
        "unlink",
        "git-status",
    ];
    for load in loads {
        let only = format!("--only=tmpfs/{load}");
        let (report, text) = measure(&places, &["--targets=tmpfs", &only]);
        let mut names = vec![
            "ringside auto",
            "ringside never",
            "rust virtiofsd auto",
            "rust virtiofsd never",
            "qemu virtiofsd auto",
            "qemu virtiofsd never",
            "bare host host",
        ];
        if load.contains("2j") {
            names.extend(["ringside 2q auto", "ringside 2q never"]);
        }
        assert_eq!(seats(&report.rows, load), wanted(&names));
        let (absent, there): (Vec<_>, Vec<_>) = report
            .rows
            .iter()
            .partition(|row| row.contestant == "rust virtiofsd");
        assert!(absent.iter().all(|row| matches!(&row.outcome, Outcome::Failed { reason } if reason.contains("/no-such-virtiofsd"))));
        there.into_iter().for_each(assert_measured);
        let mut ours = report.rows.iter().filter(|row| row.is_ours());
        assert!(ours.all(|row| row.against_peer.is_some()));
        assert!(
            text.contains(&format!("tmpfs/{load}")) && text.contains("aims: "),
            "{text}"
        );
    }
    places.assert_clean();
}

#[test]
fn the_disk_has_its_rows_too() {
    let places = Places::new();
    let options = [
        "--targets=disk",
        "--only=1m-write-d1",
        "--caches=auto",
        "--queues=1",
    ];
    let (report, _) = measure(&places, &options);
    let names = [
        "ringside auto",
        "rust virtiofsd auto",
        "qemu virtiofsd auto",
        "bare host host",
    ];
    assert_eq!(seats(&report.rows, "1m-write-d1"), wanted(&names));
    assert_eq!(report.rows[0].target, Target::Disk);
    assert_eq!(
        report
            .rows
            .iter()
            .filter(|row| row.role == Role::Ours)
            .count(),
        2
    );
    places.assert_clean();
}

/// Somebody else's daemon serves the directory that is named for the target.
#[test]
fn a_daemon_that_runs_already_takes_part() {
    let places = Places::new();
    let socket = places.scratch.path().join("theirs.sock");
    let theirs = Daemon::builder(binary("virtiofsd").unwrap())
        .arg(format!("--socket-path={}", socket.display()))
        .arg(format!("--shared-dir={}", places.tmpfs.path().display()))
        .spawn_listening(&socket, Duration::from_secs(10))
        .unwrap();
    let peer = format!("--peer=theirs={}:{}", socket.display(), theirs.pid());
    let options = [
        "--targets=tmpfs",
        "--only=tmpfs/create",
        "--caches=auto",
        &peer,
    ];
    let (report, _) = measure(&places, &options);
    let row = report
        .rows
        .iter()
        .find(|row| row.contestant == "theirs")
        .unwrap();
    assert_measured(row);
    drop(theirs);
    fs::remove_file(&socket).unwrap();
    places.assert_clean();
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let places = Places::new();
    let mut run = Daemon::builder(PROGRAM)
        .args(arguments(&places))
        .args([
            "--size=64",
            "--seconds=20",
            "--files=100",
            "--targets=tmpfs",
        ])
        .env("TMPDIR", places.scratch.path())
        .spawn()
        .unwrap();
    let first = format!("tmpfs/{}", Workload::ALL[0].name());
    run.wait_stderr(&first, Duration::from_secs(30)).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let pid = run.pid().to_string();
    let is_under_way = || {
        processes_naming(places.tmpfs.path()).len() >= 2 && is_mounted(places.scratch.path(), &pid)
    };
    while !is_under_way() {
        assert!(std::time::Instant::now() < deadline, "nothing is mounted");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its mounts are its own, and go with its processes.
    assert!(!is_mounted(places.scratch.path(), "self"));
    run.signal(Signal::INT).unwrap();
    let exit = run.wait_exit(Duration::from_secs(20)).unwrap();
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stderr.contains("interrupted"), "{}", exit.stderr);
    drop(run);
    places.assert_clean();
}

fn is_mounted(directory: &Path, process: &str) -> bool {
    let table = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    table.contains(directory.to_str().unwrap())
}

//! `ringside-perf blk` as a user runs it: every row is there, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lab::process::{Daemon, binary};
use ringside_perf::scenario::blk::{Mode, Outcome, Report, Role, Row, Target, Workload};
use rustix::process::Signal;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringside-perf");

/// Directories for everything that a run makes.
struct Places {
    tmpfs: TempDir,
    scratch: TempDir,
}

impl Places {
    fn new() -> Self {
        Self {
            tmpfs: TempDir::new_in("/dev/shm").unwrap(),
            scratch: TempDir::new_in("/var/tmp").unwrap(),
        }
    }

    fn arguments(&self) -> Vec<String> {
        let ours = binary("vhost-user-blk").unwrap();
        vec![
            "blk".into(),
            format!("--ours={}", ours.display()),
            format!("--tmpfs={}", self.tmpfs.path().display()),
            format!("--scratch={}", self.scratch.path().display()),
        ]
    }

    /// Fails if a file or a process that names the directories is left.
    fn assert_clean(&self) {
        for dir in [&self.tmpfs, &self.scratch] {
            let left: Vec<PathBuf> = fs::read_dir(dir)
                .unwrap()
                .map(|it| it.unwrap().path())
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
            let users = processes_naming(dir.path());
            assert!(users.is_empty(), "still running: {users:?}");
        }
    }
}

fn processes_naming(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let commands = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&words).replace('\0', " "))
        });
    commands.filter(|command| command.contains(&name)).collect()
}

fn measure(places: &Places, options: &[&str]) -> (Report, Output) {
    let results = TempDir::new().unwrap();
    let json = results.path().join("report.json");
    let output = Command::new(PROGRAM)
        .args(places.arguments())
        .arg("--smoke")
        .args(options)
        .arg("--json")
        .arg(&json)
        .env("TMPDIR", places.scratch.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    (report, output)
}

fn seats(rows: &[Row], target: Target, workload: Workload) -> BTreeSet<String> {
    let rows = rows
        .iter()
        .filter(|row| row.target == target && row.workload == workload);
    rows.map(|row| format!("{} {}", row.contestant, row.mode))
        .collect()
}

fn assert_measured(row: &Row) {
    let place = format!(
        "{}/{} {} {}",
        row.target, row.name, row.contestant, row.mode
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
        samples.iter().all(|it| it.requests > 0 && it.iops > 0.0),
        "{place}"
    );
    assert!(samples.iter().all(|it| it.latency.p50_ns > 0.0), "{place}");
    assert_eq!(system_calls.is_some(), row.mode != Mode::Host, "{place}");
}

#[test]
fn everybody_has_a_row_for_every_load_on_tmpfs() {
    let places = Places::new();
    let (report, output) = measure(&places, &["--targets=tmpfs"]);
    let daemons = ["ringside", "qsd io_uring", "qsd threads", "qsd native"];
    let rings = daemons
        .iter()
        .flat_map(|it| [format!("{it} eventfd"), format!("{it} polling")]);
    let fio = ["fio io_uring host", "fio psync host"].map(str::to_owned);
    let wanted: BTreeSet<String> = rings.chain(fio).collect();
    for workload in Workload::ALL {
        assert_eq!(seats(&report.rows, Target::Tmpfs, workload), wanted);
    }
    report.rows.iter().for_each(assert_measured);
    let ours = report.rows.iter().filter(|row| row.role == Role::Ours);
    assert!(
        ours.clone()
            .all(|row| row.against_peer.is_some() && row.against_fio.is_some())
    );
    assert_eq!(report.idle.len(), daemons.len());
    assert!(report.verdicts.iter().all(|verdict| verdict.met.is_some()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("tmpfs/4k-randread-d32") && text.contains("aims: "),
        "{text}"
    );
    places.assert_clean();
}

#[test]
fn disk_and_null_have_their_rows_too() {
    let places = Places::new();
    let options = [
        "--targets=disk,null",
        "--only=4k-randread-d32",
        "--modes=polling",
    ];
    let (report, _) = measure(&places, &options);
    let deep = Workload::ALL[2];
    let wanted = |names: &[&str]| {
        names
            .iter()
            .map(|&it| it.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let disk = [
        "ringside polling",
        "qsd io_uring polling",
        "qsd threads polling",
        "qsd native polling",
        "fio io_uring host",
    ];
    assert_eq!(seats(&report.rows, Target::Disk, deep), wanted(&disk));
    let null = ["ringside polling", "qsd null-co polling"];
    assert_eq!(seats(&report.rows, Target::Null, deep), wanted(&null));
    // Our daemon may say that it lacks an option; nobody else has an excuse.
    report
        .rows
        .iter()
        .filter(|row| row.role != Role::Ours)
        .for_each(assert_measured);
    places.assert_clean();
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let places = Places::new();
    let mut run = Daemon::builder(PROGRAM)
        .args(places.arguments())
        .args(["--size=64", "--seconds=20", "--targets=tmpfs"])
        .env("TMPDIR", places.scratch.path())
        .spawn()
        .unwrap();
    run.wait_stderr("tmpfs/4k-randread-d1", Duration::from_secs(30))
        .unwrap();
    assert!(!processes_naming(places.tmpfs.path()).is_empty());
    run.signal(Signal::INT).unwrap();
    let exit = run.wait_exit(Duration::from_secs(10)).unwrap();
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stderr.contains("interrupted"), "{}", exit.stderr);
    drop(run);
    places.assert_clean();
}

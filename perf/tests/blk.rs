//! `ringside-perf blk` as a user runs it: every row is there, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod places;

use std::collections::BTreeSet;
use std::time::Duration;

use lab::process::{Daemon, binary};
use places::{PROGRAM, Places, processes_naming};
use ringside_perf::scenario::blk::{Mode, Outcome, Report, Role, Row, Target, Workload};
use rustix::process::Signal;

fn arguments(places: &Places) -> Vec<String> {
    places.arguments("blk", &binary("vhost-user-blk").unwrap())
}

fn measure(places: &Places, options: &[&str]) -> (Report, String) {
    places.measure(arguments(places), options)
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
    let (report, text) = measure(&places, &["--targets=tmpfs"]);
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
        .args(arguments(&places))
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

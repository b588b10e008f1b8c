//! `ringside-perf net` as a user runs it: every row is there, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod guests;
mod places;

use lab::process::binary;
use places::Places;
use ringside_perf::scenario::net::{
    Direction, GuestLoad, GuestOutcome, Outcome, Report, Role, Row, Target, Workload,
};

fn measure(places: &Places, options: &[&str]) -> (Report, String) {
    let arguments = places.arguments("net", &binary("vhost-user-net").unwrap());
    places.measure(arguments, options)
}

fn assert_measured(row: &Row) {
    let place = format!("{}/{} {}", row.target, row.name, row.contestant);
    let Outcome::Measured {
        samples,
        system_calls,
        ..
    } = &row.outcome
    else {
        panic!("{place}: {:?}", row.outcome);
    };
    assert!(
        samples.iter().all(|it| it.packets > 0 && it.rate > 0.0),
        "{place}"
    );
    assert!(samples.iter().all(|it| it.cpu_us > 0.0), "{place}");
    let echo = row.workload.direction == Direction::Echo;
    assert!(
        samples.iter().all(|it| it.latency.is_some() == echo),
        "{place}"
    );
    assert_eq!(system_calls.is_some(), row.role != Role::Limit, "{place}");
}

#[test]
fn everybody_has_a_row_for_every_load() {
    let places = Places::new();
    let (report, text) = measure(&places, &["--targets", "tap,switch"]);
    for workload in Workload::ALL {
        let of = |row: &&Row| row.target == Target::Tap && row.workload == workload;
        let names: Vec<_> = report
            .rows
            .iter()
            .filter(of)
            .map(|row| row.contestant.as_str())
            .collect();
        match workload.direction {
            Direction::Echo => assert_eq!(names, ["ringside"]),
            _ => assert_eq!(names, ["ringside", "bare tap"]),
        }
    }
    let switch = report
        .rows
        .iter()
        .filter(|row| row.target == Target::Switch);
    assert_eq!(switch.count(), 6, "our switch and bridged taps");
    report.rows.iter().for_each(assert_measured);
    assert!(report.verdicts.iter().all(|verdict| verdict.met.is_some()));
    assert!(
        text.contains("tap/64-echo-d1") && text.contains("aims: "),
        "{text}"
    );
    places.assert_clean();
}

/// The device that the hypervisor brings along, next to ours: under `target` these take part.
fn guests_are_measured(target: Target, wanted: &[&str]) {
    let places = Places::new();
    let name = target.to_string();
    let (report, text) = measure(&places, &["--targets", &name]);
    for load in GuestLoad::ALL {
        let rows = report.guests.iter().filter(|row| row.load == load);
        let names: Vec<_> = rows.map(|row| row.contestant.as_str()).collect();
        assert_eq!(names, wanted, "{}", load.name());
    }
    for row in &report.guests {
        let place = format!("{name}/{} {}", row.load.name(), row.contestant);
        let GuestOutcome::Measured { samples, .. } = &row.outcome else {
            panic!("{place}: {:?}", row.outcome);
        };
        let sample = samples[0];
        let ping = row.load == GuestLoad::Ping;
        assert_eq!(sample.latency.is_some(), ping, "{place}");
        assert_eq!(sample.gbit_per_s > 0.0, !ping, "{place}");
        assert!(sample.cpu_s > 0.0, "{place}");
        assert_eq!(
            sample.daemon_cpu_s.is_some(),
            row.role == Role::Ours,
            "{place}"
        );
        let device = sample.device_cpu_s;
        assert_eq!(device.is_some(), target == Target::Qemu, "{place}");
        assert!(
            device.is_none_or(|it| it > 0.0 && it < sample.cpu_s),
            "{place}"
        );
    }
    assert!(report.verdicts.iter().all(|verdict| verdict.met.is_some()));
    assert!(text.contains(&format!("{name}/tcp-out")), "{text}");
    places.assert_clean();
}

#[test]
fn a_qemu_guest_is_measured_on_our_device_and_on_its_own() {
    let wanted = ["ringside", "qemu virtio-net", "qemu virtio-net INTx"];
    guests_are_measured(Target::Qemu, &wanted);
}

#[test]
fn a_uml_guest_is_measured_on_our_device_and_on_its_own() {
    guests_are_measured(Target::Uml, &["ringside", "uml vector"]);
}

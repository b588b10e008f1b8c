//! `ringside-perf net` as a user runs it: every row is there, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod places;

use lab::process::binary;
use places::Places;
use ringside_perf::scenario::net::{Direction, Outcome, Report, Role, Row, Target, Workload};

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
    let (report, text) = measure(&places, &[]);
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

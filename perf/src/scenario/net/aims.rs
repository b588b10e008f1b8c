//! The aims of the network daemon (issue 5, "Speed"), held against what was measured.

use super::line_up::{BARE, BRIDGED};
use super::results::{Outcome, Row};
use super::workload::{Direction, Target, Workload};
use super::{Role, Verdict};
use crate::scenario::verdict::Bound;

const FASTER_THAN_PEERS: Bound = Bound::AtLeast(1.5);
const LEVEL_WITH_PEERS: Bound = Bound::AtLeast(1.0);
const NEAR_BARE: Bound = Bound::AtLeast(0.9);
/// The documents have vhost-net 5 to 15 % behind a plain container: ours is to be no further behind the host's own way
/// to the same tap.
const LEVEL_WITH_HOST: Bound = Bound::AtLeast(0.95);
const SWITCH_OVER_TAP: Bound = Bound::AtLeast(3.0);

/// Every aim at every place where it applies; those that could not be measured are there too.
pub(super) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let ours = rows.iter().filter(|row| row.role == Role::Ours);
    ours.flat_map(|row| of_row(rows, row)).collect()
}

fn of_row(rows: &[Row], ours: &Row) -> Vec<Verdict> {
    let Workload {
        direction, bytes, ..
    } = ours.workload;
    if ours.target == Target::Switch {
        return match bytes {
            64 => vec![over_bridged_taps(rows, ours), over_tap(rows, ours)],
            _ => Vec::new(),
        };
    }
    let mut verdicts = Vec::new();
    if direction != Direction::Echo {
        let (aim, bound) = match bytes {
            64 => ("rate over bare system calls", NEAR_BARE),
            _ => (
                "rate over the host's own (documents: 5 % behind)",
                LEVEL_WITH_HOST,
            ),
        };
        let bare = |row: &&Row| row.contestant == BARE;
        verdicts.push(rate(rows, ours, aim, bound, bare));
    }
    let peer = |row: &&Row| row.role == Role::Peer;
    if direction != Direction::Echo && rows.iter().any(|row| peer(&row)) {
        let bound = match ours.workload.is_tso() {
            true => LEVEL_WITH_PEERS,
            false => FASTER_THAN_PEERS,
        };
        verdicts.push(rate(rows, ours, "rate over the best peer's", bound, peer));
    }
    verdicts
}

fn rate(rows: &[Row], ours: &Row, aim: &str, bound: Bound, of: impl Fn(&&Row) -> bool) -> Verdict {
    let like_ours = rows.iter().filter(|row| {
        (row.target, row.workload) == (ours.target, ours.workload)
            && row.outcome.summary().is_some()
    });
    let speed = |row: &Row| {
        row.outcome
            .summary()
            .map_or(0.0, |summary| summary.rate.median)
    };
    let best = like_ours
        .filter(of)
        .max_by(|left, right| speed(left).total_cmp(&speed(right)));
    let ratio = best.and_then(|best| {
        let pairs = ours.against.iter().find(|it| it.with == best.contestant)?;
        Some((pairs.rate.median, pairs.with.clone()))
    });
    bound.verdict(aim, place(ours), ratio.ok_or_else(|| why_not(ours)))
}

/// From guest to guest either way.
fn over_bridged_taps(rows: &[Row], ours: &Row) -> Verdict {
    let aim = "rate between two ports over two bridged taps'";
    rate(rows, ours, aim, SWITCH_OVER_TAP, |row| {
        row.contestant == BRIDGED
    })
}

/// From guest to guest next to half the way, out of one tap. Medians of one run: the two targets'
/// turns do not alternate.
fn over_tap(rows: &[Row], ours: &Row) -> Verdict {
    let tap = rows.iter().find(|row| {
        row.target == Target::Tap && row.role == Role::Ours && row.workload == ours.workload
    });
    let speed = |row: &Row| row.outcome.summary().map(|summary| summary.rate.median);
    let ratio = speed(ours).zip(tap.and_then(speed));
    let ratio = ratio.map(|(switch, tap)| (switch / tap, "the tap".to_owned()));
    SWITCH_OVER_TAP.verdict(
        "rate between two ports over the tap's out",
        place(ours),
        ratio.ok_or_else(|| why_not(ours)),
    )
}

fn place(row: &Row) -> String {
    format!("{}/{}", row.target, row.name)
}

fn why_not(row: &Row) -> String {
    match &row.outcome {
        Outcome::Skipped { reason } | Outcome::Failed { reason } => reason.clone(),
        Outcome::Measured { .. } => "nothing to compare with".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::net::results::{Comparison, Sample, Summary};

    fn row(contestant: &str, role: Role, target: Target, rate: f64) -> Row {
        let sample = Sample {
            packets: 1000,
            rate,
            gbit_per_s: 1.0,
            latency: None,
            cpu_us: 1.0,
            switches: 0.0,
            others_percent: 0.0,
        };
        let workload = Workload::ALL[0];
        Row {
            target,
            name: workload.name(),
            workload,
            contestant: contestant.into(),
            role,
            outcome: Outcome::Measured {
                samples: vec![sample],
                summary: Box::new(Summary::of(&[sample]).unwrap()),
                system_calls: None,
            },
            against: Vec::new(),
        }
    }

    #[test]
    fn each_aim_meets_its_rival() {
        let mut ours = row("ringside", Role::Ours, Target::Tap, 80.0);
        let bare = row(BARE, Role::Limit, Target::Tap, 100.0);
        let slow = row("slow", Role::Peer, Target::Tap, 10.0);
        let quick = row("quick", Role::Peer, Target::Tap, 50.0);
        for other in [&bare, &slow, &quick] {
            ours.against
                .extend(Comparison::of(ours.outcome.samples(), other));
        }
        let mut switch = row("ringside", Role::Ours, Target::Switch, 300.0);
        let bridged = row(BRIDGED, Role::OtherBuild, Target::Switch, 110.0);
        switch
            .against
            .extend(Comparison::of(switch.outcome.samples(), &bridged));
        let verdicts = verdicts(&[ours, bare, slow, quick, switch, bridged]);
        let told: Vec<_> = verdicts
            .iter()
            .map(|it| (it.met, it.note.as_str()))
            .collect();
        let wanted = [
            (Some(false), BARE),
            (Some(true), "quick"),
            (Some(false), BRIDGED),
            (Some(true), "the tap"),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn an_aim_that_cannot_be_measured_stays_in_the_list() {
        let mut ours = row("ringside", Role::Ours, Target::Tap, 80.0);
        ours.outcome = Outcome::Failed {
            reason: "it ended".into(),
        };
        let verdicts = verdicts(&[ours]);
        assert_eq!(verdicts.len(), 1);
        assert!(verdicts[0].met.is_none() && verdicts[0].note == "it ended");
    }
}

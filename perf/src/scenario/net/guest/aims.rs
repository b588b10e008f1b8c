//! The aims of issue 5 ("Speed") for guests: next to QEMU's own device.

use super::line_up::QEMU;
use super::load::GuestLoad;
use super::results::{GuestComparison, GuestOutcome, GuestRow};
use crate::scenario::net::workload::Target;
use crate::scenario::net::{Role, Verdict};
use crate::scenario::verdict::Bound;
use crate::statistics::Spread;

const FASTER: Bound = Bound::AtLeast(1.5);
const CHEAPER: Bound = Bound::AtMost(0.5);
const SOONER: Bound = Bound::AtMost(0.8);

type Figure = fn(&GuestComparison) -> Option<Spread>;

/// Every aim at every place where it applies; those that could not be measured are there too.
pub(crate) fn verdicts(rows: &[GuestRow]) -> Vec<Verdict> {
    let ours = rows
        .iter()
        .filter(|row| row.role == Role::Ours && row.target == Target::Qemu);
    ours.flat_map(of_row).collect()
}

fn of_row(ours: &GuestRow) -> Vec<Verdict> {
    let aims: &[(&str, Bound, Figure)] = match ours.load {
        GuestLoad::Ping => &[("p50 over QEMU's device's", SOONER, |it| it.p50)],
        _ => &[
            ("TCP over QEMU's device's", FASTER, |it| it.rate),
            ("device's CPU per GiB over QEMU's", CHEAPER, |it| {
                it.device_cpu
            }),
        ],
    };
    let verdict = |&(aim, bound, figure): &(&str, Bound, Figure)| {
        let against = ours.against.iter().find(|it| it.with == QEMU);
        let ratio = against.and_then(figure);
        let ratio = ratio.map(|spread| (spread.median, QEMU.to_owned()));
        let place = format!("{}/{}", ours.target, ours.load.name());
        bound.verdict(aim, place, ratio.ok_or_else(|| why_not(ours)))
    };
    aims.iter().map(verdict).collect()
}

fn why_not(row: &GuestRow) -> String {
    match &row.outcome {
        GuestOutcome::Skipped { reason } | GuestOutcome::Failed { reason } => reason.clone(),
        GuestOutcome::Measured { .. } => "nothing to compare with".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Latency;
    use crate::scenario::net::guest::{GuestSample, GuestSummary};

    fn row(name: &str, role: Role, load: GuestLoad, figure: f64) -> GuestRow {
        let latency = Latency {
            p50_ns: figure,
            ..Latency::default()
        };
        let sample = GuestSample {
            gbit_per_s: figure,
            latency: (load == GuestLoad::Ping).then_some(latency),
            cpu_s: figure,
            device_cpu_s: Some(figure),
            daemon_cpu_s: None,
            others_percent: 0.0,
        };
        GuestRow {
            target: Target::Qemu,
            load,
            contestant: name.to_owned(),
            role,
            outcome: GuestOutcome::Measured {
                samples: vec![sample],
                summary: Box::new(GuestSummary::of(&[sample]).unwrap()),
                system_calls: None,
            },
            against: Vec::new(),
        }
    }

    fn met(load: GuestLoad, figure: f64) -> Vec<Option<bool>> {
        let mut ours = row("ringside", Role::Ours, load, figure);
        let theirs = row(QEMU, Role::Peer, load, 10.0);
        ours.against = GuestComparison::of(ours.outcome.samples(), &theirs)
            .into_iter()
            .collect();
        verdicts(&[ours, theirs]).iter().map(|it| it.met).collect()
    }

    #[test]
    fn streams_are_held_to_rate_and_cost_and_pings_to_time() {
        assert_eq!(met(GuestLoad::TcpOut, 16.0), [Some(true), Some(false)]);
        assert_eq!(met(GuestLoad::TcpIn, 4.0), [Some(false), Some(true)]);
        assert_eq!(met(GuestLoad::Ping, 7.0), [Some(true)]);
        assert_eq!(met(GuestLoad::Ping, 9.0), [Some(false)]);
    }

    #[test]
    fn without_a_rival_the_aims_stay_in_the_list() {
        let ours = row("ringside", Role::Ours, GuestLoad::Ping, 1.0);
        assert_eq!(verdicts(&[ours])[0].met, None);
    }
}

//! The aims of the block daemon (issue 3, "Speed"), held against what was measured.

use super::line_up::{FIO_IO_URING, OURS, QSD};
use super::results::{Comparison, Idle, Outcome, Row, Summary};
use super::workload::{Mode, Target};
use super::{Role, Verdict};
use crate::scenario::verdict::Bound;

const FASTER_THAN_QSD: Bound = Bound::AtLeast(1.5);
const NEAR_FIO: Bound = Bound::AtLeast(0.85);
const CHEAPER_THAN_QSD: Bound = Bound::AtMost(0.5);
const SOONER_THAN_QSD: Bound = Bound::AtMost(0.5);
const LEVEL_WITH_FIO: Bound = Bound::AtLeast(0.95);
const FEW_SYSTEM_CALLS: Bound = Bound::Below(0.2);
const IDLE_PERCENT: Bound = Bound::Below(0.1);

/// Every aim at every place where it applies; those that could not be measured are there too.
pub(super) fn verdicts(rows: &[Row], idle: &[Idle]) -> Vec<Verdict> {
    let ours = rows.iter().filter(|row| row.role == Role::Ours);
    let of_rows = ours.flat_map(|row| Judge { rows, ours: row }.verdicts());
    let of_idle = idle.iter().filter(|it| it.role == Role::Ours).map(|it| {
        let value = Ok((it.cpu_percent, String::new()));
        IDLE_PERCENT.verdict(
            "CPU percent while idle",
            format!("{} idle", it.target),
            value,
        )
    });
    of_rows.chain(of_idle).collect()
}

/// One of our rows, among all rows.
struct Judge<'a> {
    rows: &'a [Row],
    ours: &'a Row,
}

impl Judge<'_> {
    fn verdicts(&self) -> Vec<Verdict> {
        let workload = self.ours.workload;
        let mut verdicts = Vec::new();
        let (deep, single) = (workload.is_random_4k(32), workload.is_random_4k(1));
        if deep && self.ours.target == Target::Tmpfs {
            verdicts.push(self.faster_than_qsd());
            verdicts.push(self.of_fio(NEAR_FIO));
            verdicts.push(self.cheaper_than_qsd());
        }
        if deep {
            verdicts.push(self.system_calls());
        }
        if single && self.ours.target == Target::Tmpfs {
            verdicts.push(self.sooner_than_qsd());
        }
        if self.ours.target == Target::Disk {
            verdicts.push(self.of_fio(LEVEL_WITH_FIO));
        }
        verdicts
    }

    /// QEMU's daemon in the configuration that a figure favours.
    fn qsd(&self, cost: fn(&Summary) -> f64) -> Option<&Row> {
        let cost = |row: &Row| row.outcome.summary().map_or(f64::INFINITY, cost);
        let rivals = self
            .like_ours(self.ours.mode)
            .filter(|row| row.contestant.starts_with(QSD));
        rivals.min_by(|left, right| cost(left).total_cmp(&cost(right)))
    }

    fn like_ours(&self, mode: Mode) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| {
            let same = row.target == self.ours.target && row.workload == self.ours.workload;
            same && row.mode == mode && row.outcome.summary().is_some()
        })
    }

    fn compare(&self, with: Option<&Row>) -> Option<Comparison> {
        Comparison::of(self.ours.outcome.samples(), with?)
    }

    fn faster_than_qsd(&self) -> Verdict {
        let pair = self.compare(self.qsd(|summary| -summary.iops.median));
        let value = pair.map(|it| (it.iops.median, it.with));
        self.verdict("rate over qsd's best", FASTER_THAN_QSD, value)
    }

    fn cheaper_than_qsd(&self) -> Verdict {
        let pair = self.compare(self.qsd(|summary| summary.cpu_us.median));
        let value = pair.and_then(|it| Some((it.cpu?.median, it.with)));
        self.verdict("CPU per I/O over qsd's least", CHEAPER_THAN_QSD, value)
    }

    fn sooner_than_qsd(&self) -> Verdict {
        let pair = self.compare(self.qsd(|summary| summary.p50_us.median));
        let value = pair.and_then(|it| Some((it.p50?.median, it.with)));
        self.verdict("p50 over qsd's best", SOONER_THAN_QSD, value)
    }

    fn of_fio(&self, bound: Bound) -> Verdict {
        let fio = self
            .like_ours(Mode::Host)
            .find(|row| row.contestant == FIO_IO_URING);
        let value = self.compare(fio).map(|it| (it.iops.median, it.with));
        self.verdict("rate over fio io_uring", bound, value)
    }

    fn system_calls(&self) -> Verdict {
        let value = self
            .ours
            .outcome
            .system_calls()
            .map(|it| (it, String::new()));
        self.verdict("system calls per I/O", FEW_SYSTEM_CALLS, value)
    }

    fn verdict(&self, aim: &str, bound: Bound, value: Option<(f64, String)>) -> Verdict {
        let place = format!("{}/{} {}", self.ours.target, self.ours.name, self.ours.mode);
        bound.verdict(aim, place, value.ok_or_else(|| self.why_not()))
    }

    fn why_not(&self) -> String {
        match &self.ours.outcome {
            Outcome::Skipped { reason } | Outcome::Failed { reason } => format!("{OURS}: {reason}"),
            Outcome::Measured { .. } => "nothing to compare with".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::blk::fixture::row;

    #[test]
    fn each_aim_meets_the_rival_that_is_best_at_it() {
        let rows = [
            row(OURS, Role::Ours, Mode::Polling, 600.0, 1.0),
            // The quickest is not the cheapest.
            row("qsd native", Role::Peer, Mode::Polling, 500.0, 4.0),
            row("qsd threads", Role::Peer, Mode::Polling, 100.0, 1.5),
            row("qsd io_uring", Role::Peer, Mode::Eventfd, 9000.0, 0.1),
            row(FIO_IO_URING, Role::Limit, Mode::Host, 650.0, 1.0),
        ];
        let verdicts = verdicts(&rows, &[]);
        let told: Vec<_> = verdicts
            .iter()
            .map(|it| (it.met, it.note.as_str()))
            .collect();
        let wanted = [
            (Some(false), "qsd native"),
            (Some(true), FIO_IO_URING),
            (Some(false), "qsd threads"),
            (Some(true), ""),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn an_aim_that_cannot_be_measured_stays_in_the_list() {
        let mut ours = row(OURS, Role::Ours, Mode::Polling, 600.0, 1.0);
        ours.outcome = Outcome::Skipped {
            reason: "no --direct yet".into(),
        };
        let verdicts = verdicts(&[ours], &[]);
        assert_eq!(verdicts.len(), 4);
        assert!(
            verdicts
                .iter()
                .all(|it| it.met.is_none() && it.note.contains("no --direct"))
        );
    }

    #[test]
    fn an_idle_daemon_that_spins_misses() {
        let spinning = Idle {
            target: Target::Tmpfs,
            contestant: OURS.into(),
            role: Role::Ours,
            cpu_percent: 99.0,
            seconds: 1.0,
        };
        assert_eq!(verdicts(&[], &[spinning])[0].met, Some(false));
    }
}

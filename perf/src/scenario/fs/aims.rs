//! The aims of the file system daemon (issue 4, "Speed"), held against what was measured.

use super::results::{Comparison, Outcome, Row, Summary};
use super::workload::{Cache, Workload};
use super::{Role, Verdict};
use crate::scenario::verdict::Bound;

const NEVER_BEHIND: Bound = Bound::AtLeast(1.0);
const FASTER: Bound = Bound::AtLeast(1.5);
const CHEAPER: Bound = Bound::AtMost(0.6);
const QUEUES_SCALE: Bound = Bound::AtLeast(1.5);

/// Every aim at every place where it applies; those that could not be measured are there too.
pub(super) fn verdicts(rows: &[Row], cores: usize) -> Vec<Verdict> {
    let plain = rows.iter().filter(|row| row.is_ours());
    let queues = rows
        .iter()
        .filter(|row| row.role == Role::Ours && row.queues > 1 && workload(row).jobs() == 2);
    let plain = plain.flat_map(|ours| Judge { rows, ours }.against_peers());
    let queues = queues.map(|ours| Judge { rows, ours }.against_one_queue(cores));
    plain.chain(queues).collect()
}

fn workload(row: &Row) -> Workload {
    Workload { load: row.load }
}

/// One of our rows, among all rows.
struct Judge<'a> {
    rows: &'a [Row],
    ours: &'a Row,
}

impl<'a> Judge<'a> {
    fn against_peers(&self) -> Vec<Verdict> {
        let workload = workload(self.ours);
        let quickest = self.peer(|summary| Some(-summary.rate.median));
        let mut verdicts = vec![self.rate("rate over the best peer's", NEVER_BEHIND, quickest)];
        if workload.is_deep_random() || workload.is_metadata() {
            verdicts.push(self.rate("rate over the best peer's", FASTER, quickest));
            let cheapest = self.peer(|summary| Some(summary.cpu_us?.median));
            let cpu = self.compare(cheapest);
            let value = cpu.and_then(|it| Some((it.cpu?.median, it.with)));
            verdicts.push(self.verdict("CPU per operation over the least peer's", CHEAPER, value));
        }
        verdicts
    }

    fn against_one_queue(&self, cores: usize) -> Verdict {
        let alone = self.like_ours().find(|row| row.is_ours());
        let mut verdict = self.rate("rate over one queue's", QUEUES_SCALE, alone);
        // A thread each: the daemon's queues, the bridge's lanes, the jobs.
        let threads = usize::from(self.ours.queues) * 3;
        if cores < threads {
            verdict.note = format!(
                "{}; {threads} busy threads share {cores} cores here",
                verdict.note
            );
        }
        verdict
    }

    /// The peer for which a cost is least.
    fn peer(&self, cost: fn(&Summary) -> Option<f64>) -> Option<&'a Row> {
        let cost = |row: &Row| {
            row.outcome
                .summary()
                .and_then(cost)
                .unwrap_or(f64::INFINITY)
        };
        let peers = self.like_ours().filter(|row| row.role == Role::Peer);
        peers.min_by(|left, right| cost(left).total_cmp(&cost(right)))
    }

    fn like_ours(&self) -> impl Iterator<Item = &'a Row> {
        let ours = self.ours;
        self.rows.iter().filter(move |row| {
            let same = row.target == ours.target && row.load == ours.load;
            same && row.cache == ours.cache && row.outcome.summary().is_some()
        })
    }

    fn compare(&self, with: Option<&Row>) -> Option<Comparison> {
        Comparison::of(self.ours.outcome.samples(), with?)
    }

    fn rate(&self, aim: &str, bound: Bound, with: Option<&Row>) -> Verdict {
        let value = self.compare(with).map(|it| (it.rate.median, it.with));
        self.verdict(aim, bound, value)
    }

    fn verdict(&self, aim: &str, bound: Bound, value: Option<(f64, String)>) -> Verdict {
        let Row {
            target,
            name,
            cache,
            contestant,
            outcome,
            ..
        } = self.ours;
        let place = match cache {
            Cache::Host => format!("{target}/{name}"),
            cache => format!("{target}/{name} {cache}"),
        };
        let why_not = || match outcome {
            Outcome::Skipped { reason } | Outcome::Failed { reason } => {
                format!("{contestant}: {reason}")
            }
            Outcome::Measured { .. } => "nothing to compare with".to_owned(),
        };
        bound.verdict(aim, place, value.ok_or_else(why_not))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::fs::fixture::row;
    use crate::scenario::fs::line_up::OURS;

    #[test]
    fn each_aim_meets_the_rival_that_is_best_at_it() {
        let rows = [
            row(OURS, Role::Ours, Cache::Auto, 160.0, 1.2),
            // The quickest is not the cheapest.
            row("rust", Role::Peer, Cache::Auto, 120.0, 2.4),
            row("qemu", Role::Peer, Cache::Auto, 90.0, 1.6),
            row("rust", Role::Peer, Cache::Never, 9000.0, 0.1),
            row("bare host", Role::Limit, Cache::Host, 700.0, 0.0),
        ];
        let verdicts = verdicts(&rows, 8);
        let told: Vec<_> = verdicts
            .iter()
            .map(|it| (it.met, it.note.as_str()))
            .collect();
        let wanted = [
            (Some(true), "rust"),
            (Some(false), "rust"),
            (Some(false), "qemu"),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn several_queues_are_held_against_one_and_a_small_host_is_named() {
        let load = Workload::ALL[2].load;
        let mut one = row(OURS, Role::Ours, Cache::Auto, 100.0, 1.0);
        let mut two = row("ringside 2q", Role::Ours, Cache::Auto, 160.0, 1.0);
        two.queues = 2;
        (one.load, two.load) = (load, load);
        let rows = [one, two];
        let of_queues = |cores| verdicts(&rows, cores).pop().unwrap();
        assert_eq!(of_queues(8).met, Some(true));
        assert_eq!(of_queues(8).note, OURS);
        assert!(of_queues(2).note.contains("share 2 cores"));
    }

    #[test]
    fn an_aim_that_cannot_be_measured_stays_in_the_list() {
        let mut ours = row(OURS, Role::Ours, Cache::Auto, 600.0, 1.0);
        ours.outcome = Outcome::Failed {
            reason: "it ended".into(),
        };
        let verdicts = verdicts(&[ours], 2);
        assert_eq!(verdicts.len(), 3);
        assert!(
            verdicts
                .iter()
                .all(|it| it.met.is_none() && it.note.contains("it ended"))
        );
    }
}

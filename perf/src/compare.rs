//! What changed between two runs: `ringside-perf compare`.

use std::fmt;

use crate::findings::{Better, Entry, Figure, Findings, Group};
use crate::report::Table;
use crate::scenario::Role;
use crate::statistics::Interval;

/// A figure of one contestant in both runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// Scenario and workload.
    pub place: String,
    /// What was measured.
    pub what: String,
    /// Of whom.
    pub who: String,
    /// What it is in the comparison.
    pub role: Role,
    /// The new figure over the old one.
    pub ratio: Interval,
    /// What that means.
    pub verdict: Verdict,
}

/// What a change means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Better by more than the threshold, beyond doubt.
    Better,
    /// Worse by more than the threshold, beyond doubt.
    Worse,
    /// Neither, or not beyond doubt.
    Same,
    /// One of the runs has fewer than three rounds.
    Untold,
}

/// Rounds of either run without which nothing is said: draws of a single one are that one again.
const FEWEST: usize = 3;

/// Both runs side by side.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// What both measured.
    pub changes: Vec<Change>,
    /// What of ours the old run measured and failed in the new one, and why.
    pub failed: Vec<String>,
    /// What else the new run has nothing for.
    pub unmatched: Vec<String>,
}

/// How two runs are compared.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How much counts, as a part of one: 0.05 is five percent.
    pub threshold: f64,
    /// Take each figure by that of this contestant in the same run: what the whole machine did to a run
    /// then cancels out.
    pub by: Option<String>,
}

/// Compares runs of the same scenario.
#[must_use]
pub fn compare(old: &Findings, new: &Findings, terms: &Terms) -> Comparison {
    let mut comparison = Comparison::default();
    for (place, figure, entry) in entries(old) {
        let other = entries(new).find(|(there, its, it)| {
            *there == place && its.what == figure.what && it.who == entry.who
        });
        let change = other.as_ref().and_then(|(_, others, other)| {
            let (before, after) = (terms.samples(figure, entry)?, terms.samples(others, other)?);
            let ratio = Interval::of_medians(&after, &before)?;
            Some(Change {
                place: place.clone(),
                what: figure.what.clone(),
                who: entry.who.clone(),
                role: entry.role,
                ratio,
                verdict: match before.len().min(after.len()) {
                    ..FEWEST => Verdict::Untold,
                    _ => terms.verdict(figure.better, ratio),
                },
            })
        });
        match (change, failure(new, &place, entry)) {
            (Some(change), _) => comparison.changes.push(change),
            (None, Some(why)) => comparison.fail(format!("{place}: {}: {why}", entry.who)),
            (None, None) => comparison
                .unmatched
                .push(format!("{place}: {}, {}", entry.who, figure.what)),
        }
    }
    comparison
}

/// Why one of ours has no figure at a place where others have.
fn failure<'a>(run: &'a Findings, place: &str, ours: &Entry) -> Option<&'a str> {
    let groups = run.groups.iter().filter(|it| self::place(run, it) == place);
    let entries = groups.flat_map(|it| &it.figures).flat_map(|it| &it.entries);
    let mut its = entries.filter(|it| it.who == ours.who && it.samples.is_empty());
    its.find_map(|it| it.failure.as_deref())
        .filter(|_| ours.role == Role::Ours)
}

fn place(run: &Findings, group: &Group) -> String {
    format!("{} {}", run.scenario, group.name)
}

fn entries(run: &Findings) -> impl Iterator<Item = (String, &Figure, &Entry)> {
    run.groups.iter().flat_map(move |group| {
        let place = place(run, group);
        group.figures.iter().flat_map(move |figure| {
            let place = place.clone();
            let told = figure.entries.iter().filter(|it| !it.samples.is_empty());
            told.map(move |entry| (place.clone(), figure, entry))
        })
    })
}

impl Terms {
    fn samples(&self, figure: &Figure, entry: &Entry) -> Option<Vec<f64>> {
        let Some(by) = &self.by else {
            return Some(entry.samples.clone());
        };
        let by = figure.entries.iter().find(|it| it.who == *by)?;
        if entry.failure.is_some() || by.failure.is_some() {
            // Rounds behind a failure have lost their pairs.
            return None;
        }
        let ratios = entry
            .samples
            .iter()
            .zip(&by.samples)
            .map(|(it, by)| it / by);
        Some(ratios.collect())
    }

    fn verdict(&self, better: Better, ratio: Interval) -> Verdict {
        let more = ratio.low > 1.0 + self.threshold;
        let less = ratio.high < 1.0 - self.threshold;
        match (better, more, less) {
            (Better::Higher, true, _) | (Better::Lower, _, true) => Verdict::Better,
            (Better::Higher, _, true) | (Better::Lower, true, _) => Verdict::Worse,
            _ => Verdict::Same,
        }
    }
}

impl Comparison {
    /// Whether anything of ours became worse, or failed.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        !self.failed.is_empty() || self.ours().any(|it| it.verdict == Verdict::Worse)
    }

    /// Whether anything is said of ours.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.ours().any(|it| it.verdict != Verdict::Untold)
    }

    fn ours(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|it| it.role == Role::Ours)
    }

    /// Notes a failure: a contestant that fails does so in all its figures.
    fn fail(&mut self, told: String) {
        if !self.failed.contains(&told) {
            self.failed.push(told);
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(
            4,
            &["", "where", "who", "what", "new / old", "95 % of draws"],
        );
        for change in &self.changes {
            let word = match change.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "WORSE",
                Verdict::Same => "",
                Verdict::Untold => "too few rounds",
            };
            let Interval { ratio, low, high } = change.ratio;
            table.row(vec![
                word.to_owned(),
                change.place.clone(),
                change.who.clone(),
                change.what.clone(),
                format!("{ratio:.3}"),
                format!("{low:.3}..{high:.3}"),
            ]);
        }
        write!(f, "{table}")?;
        for place in &self.failed {
            writeln!(f, "FAILED in the new run: {place}")?;
        }
        for place in &self.unmatched {
            writeln!(f, "not to be compared: {place}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::fixture::findings;

    fn terms() -> Terms {
        Terms {
            threshold: 0.05,
            by: None,
        }
    }

    #[test]
    fn a_slower_daemon_is_found() {
        let old = findings(&[("ringside", Role::Ours, [100.0, 101.0, 99.0, 100.0, 102.0])]);
        let new = findings(&[("ringside", Role::Ours, [80.0, 81.0, 79.0, 80.0, 82.0])]);
        let comparison = compare(&old, &new, &terms());
        assert!(comparison.is_worse(), "{comparison}");
        assert!(comparison.to_string().contains("WORSE"));
        assert!(!compare(&new, &old, &terms()).is_worse());
    }

    #[test]
    fn noise_is_no_change_and_a_peer_is_not_ours() {
        let old = findings(&[("ringside", Role::Ours, [100.0, 70.0, 130.0, 90.0, 110.0])]);
        let new = findings(&[("ringside", Role::Ours, [85.0, 60.0, 120.0, 80.0, 105.0])]);
        assert!(!compare(&old, &new, &terms()).is_worse());
        let old = findings(&[("qsd", Role::Peer, [100.0; 5])]);
        let new = findings(&[("qsd", Role::Peer, [50.0; 5])]);
        let comparison = compare(&old, &new, &terms());
        assert!(!comparison.is_worse());
        assert_eq!(comparison.changes[0].verdict, Verdict::Worse);
    }

    #[test]
    fn a_slower_machine_cancels_out() {
        let run = |speed: f64| {
            findings(&[
                ("ringside", Role::Ours, [2.0 * speed; 5]),
                ("qsd", Role::Peer, [speed; 5]),
            ])
        };
        assert!(compare(&run(100.0), &run(50.0), &terms()).is_worse());
        let by = Terms {
            by: Some("qsd".into()),
            ..terms()
        };
        assert!(!compare(&run(100.0), &run(50.0), &by).is_worse());
    }

    #[test]
    fn a_failure_of_ours_is_worse_and_a_peers_is_not() {
        let both = [
            ("ringside", Role::Ours, [100.0; 5]),
            ("qsd", Role::Peer, [100.0; 5]),
        ];
        let old = findings(&both);
        let failing = |place: usize| {
            let mut new = findings(&both);
            let entry = &mut new.groups[0].figures[0].entries[place];
            entry.samples.clear();
            entry.failure = Some("it ended".into());
            compare(&old, &new, &terms())
        };
        let (ours, peers) = (failing(0), failing(1));
        assert!(ours.is_worse(), "{ours}");
        assert_eq!(
            ours.failed,
            ["blk tmpfs/4k-randread-d1: ringside: it ended"]
        );
        assert!(!peers.is_worse() && peers.is_told(), "{peers}");
        assert_eq!(peers.unmatched, ["blk tmpfs/4k-randread-d1: qsd, requests"]);
    }

    #[test]
    fn too_few_rounds_and_a_name_that_nobody_has_say_nothing() {
        let run = |rounds: usize, rate: f64| {
            let mut run = findings(&[("ringside", Role::Ours, [rate; 5])]);
            let samples = &mut run.groups[0].figures[0].entries[0].samples;
            samples.truncate(rounds);
            run
        };
        let few = compare(&run(5, 100.0), &run(2, 50.0), &terms());
        assert!(!few.is_worse() && !few.is_told(), "{few}");
        let enough = compare(&run(5, 100.0), &run(3, 50.0), &terms());
        assert!(enough.is_worse() && enough.is_told(), "{enough}");
        let by = Terms {
            by: Some("nobody".into()),
            ..terms()
        };
        assert!(!compare(&run(5, 100.0), &run(5, 50.0), &by).is_told());
    }

    #[test]
    fn what_is_missing_is_told() {
        let old = findings(&[("ringside", Role::Ours, [1.0; 5])]);
        let new = Findings {
            groups: Vec::<Group>::new(),
            ..old.clone()
        };
        let comparison = compare(&old, &new, &terms());
        assert_eq!(
            comparison.unmatched,
            ["blk tmpfs/4k-randread-d1: ringside, requests"]
        );
    }
}

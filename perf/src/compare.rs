//! What changed between two runs: `ringside-perf compare`.

use std::fmt;

use crate::findings::{Better, Entry, Figure, Findings};
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
}

/// Both runs side by side.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// What both measured.
    pub changes: Vec<Change>,
    /// What only one of them measured.
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
                verdict: terms.verdict(figure.better, ratio),
            })
        });
        match change {
            Some(change) => comparison.changes.push(change),
            None => comparison
                .unmatched
                .push(format!("{place}: {}, {}", entry.who, figure.what)),
        }
    }
    comparison
}

fn entries(run: &Findings) -> impl Iterator<Item = (String, &Figure, &Entry)> {
    run.groups.iter().flat_map(move |group| {
        let place = format!("{} {}", run.scenario, group.name);
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
    /// Whether anything of ours became worse.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        let worse = |it: &Change| it.verdict == Verdict::Worse && it.role == Role::Ours;
        self.changes.iter().any(worse)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(
            4,
            &["", "where", "who", "what", "new / old", "95 % of runs"],
        );
        for change in &self.changes {
            let word = match change.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "WORSE",
                Verdict::Same => "",
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
        for place in &self.unmatched {
            writeln!(f, "only in the old run: {place}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Group;
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

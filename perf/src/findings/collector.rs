//! Figures as they come, round by round.

use super::{Better, Entry, Figure, Group};
use crate::scenario::Role;
use crate::statistics::Spread;

/// What a figure is.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// In words.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way it should go.
    pub better: Better,
}

/// Groups of figures that grow; groups, figures and contestants stay in the order in which they first came.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    groups: Vec<Group>,
}

impl Collector {
    /// A round's value of one contestant.
    pub fn add(&mut self, group: &str, told: Told, who: &str, role: Role, value: f64) {
        self.entry(group, told, who, role).samples.push(value);
    }

    /// That it has no value, and why. The first reason stays.
    pub fn fail(&mut self, group: &str, told: Told, who: &str, role: Role, why: &str) {
        let entry = self.entry(group, told, who, role);
        entry.failure.get_or_insert_with(|| why.to_owned());
    }

    /// A contestant's values so far.
    #[must_use]
    pub fn samples(&self, group: &str, what: &str, who: &str) -> &[f64] {
        self.find(group, what, who).map_or(&[], |it| &it.samples)
    }

    fn find(&self, group: &str, what: &str, who: &str) -> Option<&Entry> {
        let group = self.groups.iter().find(|it| it.name == group)?;
        let figure = group.figures.iter().find(|it| it.what == what)?;
        figure.entries.iter().find(|it| it.who == who)
    }

    /// The median of a contestant's values; nothing where it has none.
    #[must_use]
    pub fn median(&self, group: &str, what: &str, who: &str) -> Option<f64> {
        let values = self.samples(group, what, who).iter().copied();
        Spread::of(values).map(|it| it.median)
    }

    /// The median of one contestant's values by another's, round by round.
    ///
    /// # Errors
    /// Says who of them has no value, or failed in a round: those behind it have lost their pairs.
    pub fn ratio(&self, group: &str, what: &str, whose: &str, by: &str) -> Result<f64, String> {
        let values = |who: &str| {
            let entry = self.find(group, what, who);
            match entry.filter(|it| !it.samples.is_empty() || it.failure.is_some()) {
                None => Err(format!("{who} was not measured")),
                Some(entry) => match &entry.failure {
                    Some(why) => Err(format!("{who} failed: {why}")),
                    None => Ok(&entry.samples),
                },
            }
        };
        let ratios = Spread::of_ratios(values(whose)?, values(by)?);
        ratios
            .map(|it| it.median)
            .ok_or_else(|| format!("{by} has no value above zero"))
    }

    /// All groups.
    #[must_use]
    pub fn groups(self) -> Vec<Group> {
        self.groups
    }

    fn entry(&mut self, group: &str, told: Told, who: &str, role: Role) -> &mut Entry {
        let group = or_push(
            &mut self.groups,
            |it| it.name == group,
            || Group {
                name: group.to_owned(),
                figures: Vec::new(),
                curves: Vec::new(),
            },
        );
        let figure = or_push(
            &mut group.figures,
            |it| it.what == told.what,
            || Figure {
                what: told.what.to_owned(),
                unit: told.unit.to_owned(),
                better: told.better,
                entries: Vec::new(),
            },
        );
        or_push(
            &mut figure.entries,
            |it| it.who == who,
            || Entry {
                who: who.to_owned(),
                role,
                samples: Vec::new(),
                failure: None,
            },
        )
    }
}

/// The one that is it; a new one at the end where there is none.
pub(super) fn or_push<T>(
    all: &mut Vec<T>,
    is_it: impl Fn(&T) -> bool,
    new: impl FnOnce() -> T,
) -> &mut T {
    let place = all.iter().position(is_it).unwrap_or_else(|| {
        all.push(new());
        all.len() - 1
    });
    &mut all[place]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::fixture::RATE;

    #[test]
    fn values_go_to_their_contestant_and_ratios_pair_rounds() {
        let mut all = Collector::default();
        for (ours, theirs) in [(200.0, 100.0), (20.0, 10.0), (90.0, 30.0)] {
            all.add("dd", RATE, "ours", Role::Ours, ours);
            all.add("dd", RATE, "theirs", Role::Peer, theirs);
        }
        all.fail("dd", RATE, "absent", Role::Peer, "it is not there");
        assert_eq!(all.ratio("dd", "rate", "ours", "theirs"), Ok(2.0));
        assert!(all.ratio("dd", "rate", "ours", "absent").is_err());
        let groups = all.groups();
        assert_eq!(groups[0].figures[0].entries.len(), 3);
        assert_eq!(
            groups[0].figures[0].entries[2].failure.as_deref(),
            Some("it is not there")
        );
    }

    #[test]
    fn who_failed_in_a_round_keeps_its_median_and_has_no_ratio() {
        let mut all = Collector::default();
        for rate in [100.0, 20.0] {
            all.add("dd", RATE, "ours", Role::Ours, rate);
        }
        all.fail("dd", RATE, "theirs", Role::Peer, "it ended");
        // In the second round, whose pair is ours of the second.
        all.add("dd", RATE, "theirs", Role::Peer, 10.0);
        assert_eq!(
            all.ratio("dd", "rate", "ours", "theirs"),
            Err("theirs failed: it ended".to_owned())
        );
        assert_eq!(all.median("dd", "rate", "theirs"), Some(10.0));
    }
}

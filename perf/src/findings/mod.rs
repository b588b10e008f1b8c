//! What the reports of all scenarios have in common: figures of contestants, round by round. Pages are
//! drawn of it, and runs compared.

mod blk;
mod boot;
mod collector;
mod curve;
mod distribution;
mod file;
#[cfg(test)]
pub(crate) mod fixture;
mod fs;
mod net;
#[cfg(test)]
mod schema;

use serde::{Deserialize, Serialize};

use self::distribution::distribution;
use crate::host::HostFacts;
use crate::measure::Latency;
use crate::scenario::{Outcome, Role, Verdict};

pub use collector::{Collector, Told};
pub use curve::{Curve, Line};
pub use file::{LoadError, load};

/// Names the form of [`Findings`]: `docs/findings.schema.json`.
pub const SCHEMA: &str = "ringside-perf/findings/1";

/// One scenario's run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Findings {
    /// [`SCHEMA`].
    pub schema: String,
    /// `blk`, `fs`, `net`, `boot`, `documents`, `start`, `growth`.
    pub scenario: String,
    /// The machine.
    pub host: HostFacts,
    /// How it was measured, a sentence each.
    pub method: Vec<String>,
    /// False where the user ended the run.
    pub complete: bool,
    /// Who could not take part, and why.
    pub skipped: Vec<String>,
    /// Workloads, in the order they ran.
    pub groups: Vec<Group>,
    /// The aims.
    pub verdicts: Vec<Verdict>,
}

/// A workload.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Group {
    /// Its name: `tmpfs/4k-randread-d1`.
    pub name: String,
    /// What was measured; the first is what the workload is about.
    pub figures: Vec<Figure>,
    /// The same along something that grows. Runs of before they were drawn have none.
    #[serde(default)]
    pub curves: Vec<Curve>,
}

/// Something that was measured of every contestant.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// Which way it should go.
    pub better: Better,
    /// The contestants, in the order of their turns.
    pub entries: Vec<Entry>,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and costs.
    Lower,
}

/// A contestant's part of a figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Entry {
    /// Its name, and what else tells it from others of the group.
    pub who: String,
    /// What it is in the comparison.
    pub role: Role,
    /// A value for each round; none where it failed.
    pub samples: Vec<f64>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// What a scenario's report is for those who draw and compare.
pub trait Finds {
    /// The report in the common form.
    fn findings(&self) -> Findings;
}

/// How one kind of row tells a figure.
struct Teller<'a, S> {
    what: &'static str,
    unit: &'static str,
    better: Better,
    of: &'a dyn Fn(&S) -> Option<f64>,
}

impl<S> Teller<'_, S> {
    fn told(&self) -> Told {
        Told {
            what: self.what,
            unit: self.unit,
            better: self.better,
        }
    }
}

/// A contestant's row, whatever the scenario calls it.
struct Seat<'a, S, M> {
    who: String,
    role: Role,
    outcome: &'a Outcome<S, M>,
}

/// The figures of one workload. What nobody has is left out, but for the first where somebody failed: it tells why.
fn figures<S, M>(seats: &[Seat<'_, S, M>], tellers: &[Teller<'_, S>]) -> Vec<Figure> {
    let entry = |seat: &Seat<'_, S, M>, teller: &Teller<'_, S>| Entry {
        who: seat.who.clone(),
        role: seat.role,
        samples: seat
            .outcome
            .samples()
            .iter()
            .filter_map(teller.of)
            .collect(),
        failure: match seat.outcome {
            Outcome::Failed { reason } => Some(reason.clone()),
            _ => None,
        },
    };
    let figure = |teller: &Teller<'_, S>| Figure {
        what: teller.what.to_owned(),
        unit: teller.unit.to_owned(),
        better: teller.better,
        entries: seats
            .iter()
            .filter(|seat| !matches!(seat.outcome, Outcome::Skipped { .. }))
            .map(|seat| entry(seat, teller))
            .collect(),
    };
    let is_told = |figure: &Figure| figure.entries.iter().any(|it| !it.samples.is_empty());
    let (told, untold): (Vec<Figure>, Vec<Figure>) = tellers.iter().map(figure).partition(is_told);
    if !told.is_empty() {
        return told;
    }
    let is_failed = |figure: &Figure| figure.entries.iter().any(|it| it.failure.is_some());
    untold.into_iter().take(1).filter(is_failed).collect()
}

/// Rows side by side that belong to one workload are a group.
fn groups<R, S, M>(
    rows: &[R],
    name: impl Fn(&R) -> String,
    seat: impl Fn(&R) -> Seat<'_, S, M>,
    tellers: &[Teller<'_, S>],
    latency: impl Fn(&S) -> Option<Latency>,
) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let name_of_first = name(first);
        let same = |it: &&R| name(it) == name_of_first;
        let (group, after) = rest.split_at(rest.iter().take_while(same).count());
        let seats: Vec<_> = group.iter().map(&seat).collect();
        groups.push(Group {
            name: name_of_first,
            figures: figures(&seats, tellers),
            curves: distribution(&seats, &latency).into_iter().collect(),
        });
        rest = after;
    }
    groups
}

/// Who could not take part: target, name and reason of each contestant.
fn skipped<'a>(
    contestants: impl Iterator<Item = (String, &'a str, Option<&'a String>)>,
) -> Vec<String> {
    let told = |(target, name, why): (String, &str, Option<&String>)| {
        Some(format!("{target}: {name}: {}", why?))
    };
    contestants.filter_map(told).collect()
}

/// The sentences that most scenarios have.
fn method(rounds: u32, seconds: f64, undisturbed: Option<f64>, keep_awake: bool) -> Vec<String> {
    let mut said = vec![format!(
        "Medians of {rounds} rounds; in each, every contestant had a turn of {seconds} s."
    )];
    if let Some(percent) = undisturbed {
        said.push(format!(
            "Turns waited up to 10 s for a quiet host, and were taken again, up to 5 times, while others used \
             more than {percent} % of a core."
        ));
    }
    if keep_awake {
        said.push("Processors were kept from halting.".to_owned());
    }
    said
}

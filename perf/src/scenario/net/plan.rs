//! Which loads a run measures.

use super::config::NetConfig;
use super::error::Error;
use super::guest::GuestLoad;
use super::workload::{Target, Workload};

/// The loads of one target.
pub(super) enum Step {
    /// Through rings of our own.
    Rings(Target, Vec<Workload>),
    /// By guests.
    Guests(Target, Vec<GuestLoad>),
}

impl Step {
    pub(super) fn target(&self) -> Target {
        match self {
            Self::Rings(target, _) | Self::Guests(target, _) => *target,
        }
    }

    /// How many loads there are.
    pub(super) fn loads(&self) -> usize {
        match self {
            Self::Rings(_, loads) => loads.len(),
            Self::Guests(_, loads) => loads.len(),
        }
    }
}

/// The loads of each target whose TARGET/NAME contains the pattern.
pub(super) fn plan(config: &NetConfig) -> Result<Vec<Step>, Error> {
    let only = &config.run.only;
    let is_chosen = |target, name: &str| only.takes(&format!("{target}/{name}"));
    let step = |&target: &Target| match target.is_guest() {
        true => {
            let all = GuestLoad::ALL.into_iter();
            let chosen = all.filter(|it| is_chosen(target, it.name()));
            Step::Guests(target, chosen.collect())
        }
        false => {
            let all = Workload::ALL.into_iter().filter(|it| it.runs_on(target));
            let chosen = all.filter(|it| is_chosen(target, &it.name()));
            Step::Rings(target, chosen.collect())
        }
    };
    let plan: Vec<_> = config
        .targets
        .iter()
        .map(step)
        .filter(|step| step.loads() > 0)
        .collect();
    Ok(only.at_least_one(plan)?)
}

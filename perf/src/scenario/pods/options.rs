//! Options of both scenarios: as typed, then as validated.

use std::path::PathBuf;

use clap::Args;

use crate::scenario::Only;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct PodsOptions {
    /// Rounds; in each, every contestant has a turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// 3 rounds; `growth`: 1, with up to 8 pods
    #[arg(long, conflicts_with_all = ["rounds", "smoke"])]
    pub quick: bool,

    /// 1 round; `growth`: of 1 and 2 pods
    #[arg(long, conflicts_with = "rounds")]
    pub smoke: bool,

    /// Only runtimes whose name contains one of these: runc, ringside on its VMM, ringside on QEMU; `start` alone
    #[arg(long, value_name = "PATTERN,...")]
    pub only: Option<Only>,

    /// Pods at once, for `growth`
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    pub pods: Vec<u32>,

    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct PodsConfig {
    pub(super) rounds: u32,
    /// Of `growth`, which takes longer.
    pub(super) growth_rounds: u32,
    pub(super) pods: Vec<u32>,
    pub(super) only: Only,
    /// Where to write JSON.
    pub json: Option<PathBuf>,
}

impl PodsOptions {
    /// What they mean.
    #[must_use]
    pub fn validate(self) -> PodsConfig {
        let (rounds, growth_rounds) = match (self.quick, self.smoke) {
            (true, _) => (3, 1),
            (_, true) => (1, 1),
            _ => (self.rounds, self.rounds),
        };
        PodsConfig {
            rounds,
            growth_rounds,
            pods: match self.smoke {
                true => vec![1, 2],
                false => self.pods,
            },
            only: self.only.unwrap_or_default(),
            json: self.json,
        }
    }
}

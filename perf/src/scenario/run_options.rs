//! Options that every scenario has: as typed, then as validated.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::scenario::Only;

/// The options as typed. Scenarios on files add a `--size`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Our daemon; the one next to this program by default
    #[arg(long, value_name = "PATH")]
    pub ours: Option<PathBuf>,

    /// A further option for our daemon, such as --ours-arg=--poll-us=50 (repeatable)
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub ours_arg: Vec<String>,

    /// Another build of our daemon, to see what a change gave (repeatable)
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    pub other_build: Vec<(String, PathBuf)>,

    /// Only workloads whose TARGET/NAME, such as tmpfs/4k-randread-d32, contains one of these
    #[arg(long, value_name = "PATTERN,...")]
    pub only: Option<Only>,

    /// Rounds; in each, every contestant has a turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Seconds that a turn measures
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub seconds: f64,

    /// On a busy host: wait up to 10 s before a turn until others use less than PERCENT of a core,
    /// and take it again, up to 5 times, while they used more; the least disturbed counts
    #[arg(long, value_name = "PERCENT")]
    pub undisturbed: Option<f64>,

    /// Keep the processors from halting, by threads that run when nobody else does: in a virtual
    /// machine, waking a halted processor can cost more than all that is measured here
    #[arg(long)]
    pub keep_awake: bool,

    /// 3 rounds of 0.5 s
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "smoke"])]
    pub quick: bool,

    /// 1 round of 0.1 s on little data: shows that the harness works, measures nothing
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    pub smoke: bool,

    /// Directory of the disk target's files, on a file system with O_DIRECT
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub scratch: PathBuf,

    /// Directory of the tmpfs target's files
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub tmpfs: PathBuf,

    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() => Ok((name.to_owned(), PathBuf::from(path))),
        _ => Err("expected NAME=PATH".to_owned()),
    }
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Our daemon.
    pub ours: PathBuf,
    /// Further options for it.
    pub ours_arguments: Vec<String>,
    /// Other builds of it.
    pub other_builds: Vec<(String, PathBuf)>,
    /// Which workloads.
    pub only: Only,
    /// Rounds.
    pub rounds: u32,
    /// The part of a turn that counts.
    pub duration: Duration,
    /// The part before it.
    pub warm_up: Duration,
    /// Percent of a core that others may use before a turn is taken again.
    pub undisturbed: Option<f64>,
    /// Whether to keep the processors from halting.
    pub keep_awake: bool,
    /// Directory of the disk target's files.
    pub scratch: PathBuf,
    /// Directory of the tmpfs target's files.
    pub tmpfs: PathBuf,
    /// Where to write JSON.
    pub json: Option<PathBuf>,
}

/// Options that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `--seconds`.
    #[error("--seconds {0} is not between 0.05 and 3600")]
    Seconds(f64),
    /// `--size`.
    #[error("--size {size} is not between {least} and 1048576 MiB")]
    Size {
        /// As given.
        size: u64,
        /// The least that the scenario needs.
        least: u64,
    },
    /// Two contestants of one name.
    #[error("two contestants are named '{0}': give one of them another name")]
    Twice(String),
}

impl RunOptions {
    /// Checks the options; `ours` is the program of ours that the scenario measures, `peers` are
    /// the names of contestants that the other options brought.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self, ours: &str, peers: &[&str]) -> Result<RunConfig, OptionsError> {
        let (rounds, seconds) = match (self.quick, self.smoke) {
            (true, _) => (3, 0.5),
            (_, true) => (1, 0.1),
            _ => (self.rounds, self.seconds),
        };
        if !(0.05..=3600.0).contains(&seconds) {
            return Err(OptionsError::Seconds(seconds));
        }
        let builds = self.other_build.iter().map(|(name, _)| name.as_str());
        names_differ(builds.chain(peers.iter().copied()))?;
        Ok(RunConfig {
            ours: self.ours.unwrap_or_else(|| crate::peer::find_ours(ours)),
            ours_arguments: self.ours_arg,
            other_builds: self.other_build,
            only: self.only.unwrap_or_default(),
            rounds,
            duration: Duration::from_secs_f64(seconds),
            warm_up: Duration::from_secs_f64((seconds / 10.0).clamp(0.05, 0.5)),
            undisturbed: self.undisturbed,
            keep_awake: self.keep_awake,
            scratch: self.scratch,
            tmpfs: self.tmpfs,
            json: self.json,
        })
    }
}

/// Checks a `--size` in MiB, and gives it in bytes; a smoke test takes the `least`.
///
/// # Errors
/// [`OptionsError::Size`].
pub fn bytes(size: u64, least: u64, smoke: bool) -> Result<u64, OptionsError> {
    let size = if smoke { least } else { size };
    if (least..=1 << 20).contains(&size) {
        Ok(size << 20)
    } else {
        Err(OptionsError::Size { size, least })
    }
}

fn names_differ<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), OptionsError> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(OptionsError::Twice(pair[0].to_owned())),
        None => Ok(()),
    }
}

//! Options of `blk`: as typed, then as validated.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::workload::{Mode, Target};
use crate::peer::{ExternalPeer, find_ours};

const MIB: u64 = 1 << 20;
/// 128 requests of 128 KiB.
const LEAST_MIB: u64 = 16;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct BlkOptions {
    /// Our daemon; the one next to this program by default
    #[arg(long, value_name = "PATH")]
    pub ours: Option<PathBuf>,

    /// A further option for our daemon, such as --ours-arg=--poll-us=50 (repeatable)
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub ours_arg: Vec<String>,

    /// Another build of our daemon, to see what a change gave (repeatable)
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    pub other_build: Vec<(String, PathBuf)>,

    /// A daemon that runs already and serves a disk that may be overwritten; @TARGET: tmpfs
    /// (default), disk or null (repeatable)
    #[arg(long, value_name = "NAME[@TARGET]=SOCKET:PID")]
    pub peer: Vec<ExternalPeer>,

    /// Targets to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Target::Tmpfs, Target::Disk, Target::Null])]
    pub targets: Vec<Target>,

    /// How the driver learns of completions
    #[arg(long, value_delimiter = ',', default_values_t = [Mode::Eventfd, Mode::Polling])]
    pub modes: Vec<Mode>,

    /// Only workloads whose TARGET/NAME, such as tmpfs/4k-randread-d32, contains this
    #[arg(
        long,
        value_name = "PATTERN",
        default_value = "",
        hide_default_value = true
    )]
    pub only: String,

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

    /// Size of the disk in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub size: u64,

    /// 3 rounds of 0.5 s
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "smoke"])]
    pub quick: bool,

    /// 1 round of 0.1 s on a disk of 16 MiB: shows that the harness works, measures nothing
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "size"])]
    pub smoke: bool,

    /// Directory of the disk target's file, on a file system with O_DIRECT
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub scratch: PathBuf,

    /// Directory of the tmpfs target's file
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
pub struct BlkConfig {
    /// Our daemon.
    pub ours: PathBuf,
    /// Further options for it.
    pub ours_arguments: Vec<String>,
    /// Other builds of it.
    pub other_builds: Vec<(String, PathBuf)>,
    /// Daemons that run already.
    pub peers: Vec<ExternalPeer>,
    /// Targets.
    pub targets: Vec<Target>,
    /// Modes of the driver.
    pub modes: Vec<Mode>,
    /// What a workload's name must contain.
    pub only: String,
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
    /// How long idle daemons are watched.
    pub idle: Duration,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Directory of the disk target's file.
    pub scratch: PathBuf,
    /// Directory of the tmpfs target's file.
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
    #[error("--size {0} is not between {LEAST_MIB} and 1048576 MiB")]
    Size(u64),
    /// Two contestants of one name.
    #[error("two contestants are named '{0}': give one of them another name")]
    Twice(String),
}

impl BlkOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<BlkConfig, OptionsError> {
        let (rounds, seconds, size) = match (self.quick, self.smoke) {
            (true, _) => (3, 0.5, self.size),
            (_, true) => (1, 0.1, LEAST_MIB),
            _ => (self.rounds, self.seconds, self.size),
        };
        if !(0.05..=3600.0).contains(&seconds) {
            return Err(OptionsError::Seconds(seconds));
        }
        if !(LEAST_MIB..=1 << 20).contains(&size) {
            return Err(OptionsError::Size(size));
        }
        self.names_differ()?;
        Ok(BlkConfig {
            ours: self.ours.unwrap_or_else(find_ours),
            ours_arguments: self.ours_arg,
            other_builds: self.other_build,
            peers: self.peer,
            targets: self.targets,
            modes: self.modes,
            only: self.only,
            rounds,
            duration: Duration::from_secs_f64(seconds),
            warm_up: Duration::from_secs_f64((seconds / 10.0).clamp(0.05, 0.5)),
            undisturbed: self.undisturbed,
            keep_awake: self.keep_awake,
            idle: Duration::from_secs_f64((seconds * 2.0).clamp(0.2, 5.0)),
            bytes: size * MIB,
            scratch: self.scratch,
            tmpfs: self.tmpfs,
            json: self.json,
        })
    }

    fn names_differ(&self) -> Result<(), OptionsError> {
        let builds = self.other_build.iter().map(|(name, _)| name);
        let mut names: Vec<_> = builds
            .chain(self.peer.iter().map(|peer| &peer.name))
            .collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(OptionsError::Twice(pair[0].clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: BlkOptions,
    }

    fn config(line: &str) -> Result<BlkConfig, OptionsError> {
        let words = format!("blk {line}");
        Line::parse_from(words.split_whitespace())
            .options
            .validate()
    }

    #[test]
    fn quick_and_smoke_are_short() {
        let quick = config("--quick").unwrap();
        assert_eq!(
            (quick.rounds, quick.duration),
            (3, Duration::from_millis(500))
        );
        let smoke = config("--smoke").unwrap();
        assert_eq!((smoke.rounds, smoke.bytes), (1, 16 << 20));
        assert_eq!(config("").unwrap().rounds, 5);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(matches!(
            config("--seconds 0"),
            Err(OptionsError::Seconds(_))
        ));
        assert!(matches!(config("--size 1"), Err(OptionsError::Size(1))));
        let twice = config("--peer a=/s:1 --other-build a=/b");
        assert!(matches!(twice, Err(OptionsError::Twice(name)) if name == "a"));
    }
}

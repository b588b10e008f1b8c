//! Options of `blk`: as typed, then as validated.

use std::time::Duration;

use clap::Args;

use super::workload::{Mode, Target, Workload};
use crate::peer::ExternalPeer;
use crate::scenario::run_options::{OptionsError, RunConfig, RunOptions, bytes};

/// 128 requests of 128 KiB.
const LEAST_MIB: u64 = 16;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct BlkOptions {
    /// Those that all scenarios have.
    #[command(flatten)]
    pub run: RunOptions,

    /// A daemon that runs already and serves a disk that may be overwritten; @TARGET: tmpfs
    /// (default), disk or null (repeatable)
    #[arg(long, value_name = "NAME[@TARGET]=SOCKET:PID")]
    pub peer: Vec<ExternalPeer<Target>>,

    /// Targets to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Target::Tmpfs, Target::Disk, Target::Null])]
    pub targets: Vec<Target>,

    /// How the driver learns of completions
    #[arg(long, value_delimiter = ',', default_values_t = [Mode::Eventfd, Mode::Polling])]
    pub modes: Vec<Mode>,

    /// Measures instead how rates go with depth (1 to 128) and queues (1, 2, 4)
    #[arg(long)]
    pub scaling: bool,

    /// Size of the disk in MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 1024,
        conflicts_with = "smoke"
    )]
    pub size: u64,
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct BlkConfig {
    /// What all scenarios have.
    pub run: RunConfig,
    /// Daemons that run already.
    pub peers: Vec<ExternalPeer<Target>>,
    /// Targets.
    pub targets: Vec<Target>,
    /// Modes of the driver.
    pub modes: Vec<Mode>,
    /// What is measured.
    pub workloads: &'static [Workload],
    /// How long idle daemons are watched.
    pub idle: Duration,
    /// Bytes of the disk.
    pub bytes: u64,
}

impl BlkOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<BlkConfig, OptionsError> {
        let bytes = bytes(self.size, LEAST_MIB, self.run.smoke)?;
        let names: Vec<&str> = self.peer.iter().map(|peer| peer.name.as_str()).collect();
        let run = self.run.validate("vhost-user-blk", &names)?;
        Ok(BlkConfig {
            idle: (run.duration * 2).clamp(Duration::from_millis(200), Duration::from_secs(5)),
            run,
            peers: self.peer,
            targets: self.targets,
            modes: self.modes,
            workloads: match self.scaling {
                true => &Workload::SCALING,
                false => &Workload::ALL,
            },
            bytes,
        })
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
            (quick.run.rounds, quick.run.duration),
            (3, Duration::from_millis(500))
        );
        let smoke = config("--smoke").unwrap();
        assert_eq!((smoke.run.rounds, smoke.bytes), (1, 16 << 20));
        assert_eq!(config("").unwrap().run.rounds, 5);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(matches!(
            config("--seconds 0"),
            Err(OptionsError::Seconds(_))
        ));
        assert!(matches!(
            config("--size 1"),
            Err(OptionsError::Size { size: 1, .. })
        ));
        let twice = config("--peer a=/s:1 --other-build a=/b");
        assert!(matches!(twice, Err(OptionsError::Twice(name)) if name == "a"));
    }
}

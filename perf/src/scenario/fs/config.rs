//! Options of `fs`: as typed, then as validated.

use std::path::PathBuf;

use clap::Args;

use super::workload::{Cache, Target, Workload};
use crate::peer::ExternalPeer;
use crate::scenario::run_options::{OptionsError, RunConfig, RunOptions, bytes};

/// Four files, each as long as the longest operation and more.
const LEAST_MIB: u64 = 16;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct FsOptions {
    /// Those that all scenarios have.
    #[command(flatten)]
    pub run: RunOptions,

    /// virtiofsd of the Rust virtiofsd project; by default looked for where `make bench` puts it,
    /// in ~/.cargo/bin and in PATH
    #[arg(long, value_name = "PATH")]
    pub rust_virtiofsd: Option<PathBuf>,

    /// A daemon that runs already and shares the directory that --tmpfs or --scratch names; it
    /// must outlive its front ends; @TARGET: tmpfs (default) or disk (repeatable)
    #[arg(long, value_name = "NAME[@TARGET]=SOCKET:PID")]
    pub peer: Vec<ExternalPeer<Target>>,

    /// Targets to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Target::Tmpfs, Target::Disk])]
    pub targets: Vec<Target>,

    /// What the kernel may cache
    #[arg(long, value_delimiter = ',', default_values_t = [Cache::Auto, Cache::Never])]
    pub caches: Vec<Cache>,

    /// Request queues of our daemon's second entry, next to the one with one queue
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub queues: u16,

    /// Has our daemon take turns with --state-dir DIR, too: what it costs to survive; a directory in
    /// memory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Measures instead how rates go with the size of files (4 KiB to 4 MiB)
    #[arg(long)]
    pub scaling: bool,

    /// Size of the data in MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 2048,
        conflicts_with = "smoke"
    )]
    pub size: u64,

    /// Files of the metadata workloads, and half as many in the tree of find and git status; a
    /// quick run takes a fifth [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub files: Option<u32>,
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct FsConfig {
    /// What all scenarios have.
    pub run: RunConfig,
    /// The Rust virtiofsd, if the user knows where.
    pub rust_virtiofsd: Option<PathBuf>,
    /// Daemons that run already.
    pub peers: Vec<ExternalPeer<Target>>,
    /// Targets.
    pub targets: Vec<Target>,
    /// What the kernel may cache.
    pub caches: Vec<Cache>,
    /// Request queues of our daemon's second entry.
    pub queues: u16,
    /// Where our daemon's third entry remembers what guests have open.
    pub state_dir: Option<PathBuf>,
    /// What is measured.
    pub workloads: &'static [Workload],
    /// Bytes of data, in all files.
    pub bytes: u64,
    /// Files of the metadata workloads.
    pub files: u32,
    /// Operations of `dd`.
    pub dd_count: u32,
}

impl FsOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<FsConfig, OptionsError> {
        let bytes = bytes(self.size, LEAST_MIB, self.run.smoke)?;
        let files = match (self.run.quick, self.run.smoke) {
            (true, _) => 2000,
            (_, true) => 50,
            _ => 10_000,
        };
        let dd_count = if self.run.smoke { 256 } else { 16 << 10 };
        let names: Vec<&str> = self.peer.iter().map(|peer| peer.name.as_str()).collect();
        let run = self.run.validate("virtiofsd", &names)?;
        Ok(FsConfig {
            run,
            rust_virtiofsd: self.rust_virtiofsd,
            peers: self.peer,
            targets: self.targets,
            caches: self.caches,
            queues: self.queues,
            state_dir: self.state_dir,
            workloads: match self.scaling {
                true => &Workload::SCALING,
                false => &Workload::ALL,
            },
            bytes,
            files: self.files.unwrap_or(files),
            dd_count,
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
        options: FsOptions,
    }

    fn config(line: &str) -> Result<FsConfig, OptionsError> {
        let words = format!("fs {line}");
        Line::parse_from(words.split_whitespace())
            .options
            .validate()
    }

    #[test]
    fn quick_and_smoke_do_less() {
        let (full, quick) = (config("").unwrap(), config("--quick").unwrap());
        assert_eq!((full.files, full.run.rounds), (10_000, 5));
        assert_eq!((quick.files, quick.run.rounds), (2000, 3));
        let smoke = config("--smoke --files 70").unwrap();
        assert_eq!((smoke.files, smoke.bytes), (70, 16 << 20));
    }

    #[test]
    fn too_little_data_is_refused() {
        assert!(matches!(
            config("--size 1"),
            Err(OptionsError::Size { size: 1, .. })
        ));
    }
}

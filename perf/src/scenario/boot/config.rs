//! Options of the scenario: as typed, then as validated.

use std::path::PathBuf;

use clap::Args;

use super::Error;
use crate::scenario::Only;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct BootOptions {
    /// Our VMM; the one next to this program by default
    #[arg(long, value_name = "PATH")]
    pub ours: Option<PathBuf>,

    /// Another build of our VMM, to see what a change gave (repeatable)
    #[arg(long, value_name = "NAME=PATH", value_parser = named)]
    pub other_build: Vec<(String, String)>,

    /// Another VMM, as a shell command in which {kernel}, {initramfs}, {cmdline}, {memory} (MiB) and
    /// the sockets {blk}, {net}, {fs} are replaced; its standard output is the serial port (repeatable)
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    pub peer: Vec<(String, String)>,

    /// Rounds; in each, every contestant has a turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// 3 rounds
    #[arg(long, conflicts_with_all = ["rounds", "smoke"])]
    pub quick: bool,

    /// 1 round: shows that the harness works
    #[arg(long, conflicts_with = "rounds")]
    pub smoke: bool,

    /// The guest's memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory: u32,

    /// An ELF kernel; the distribution's by default
    #[arg(long, value_name = "FILE", conflicts_with = "slim")]
    pub kernel: Option<PathBuf>,

    /// The slim kernel that `make guest-kernel` built
    #[arg(long)]
    pub slim: bool,

    /// Without disk, network and file system
    #[arg(long)]
    pub bare: bool,

    /// Only contestants whose name contains one of these
    #[arg(long, value_name = "PATTERN,...")]
    pub only: Option<Only>,

    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct BootConfig {
    pub(super) ours: PathBuf,
    pub(super) other_builds: Vec<(String, String)>,
    pub(super) peers: Vec<(String, String)>,
    pub(super) rounds: u32,
    pub(super) memory_mib: u32,
    pub(super) kernel: Option<PathBuf>,
    pub(super) slim: bool,
    pub(super) bare: bool,
    pub(super) only: Only,
    /// Where to write JSON.
    pub json: Option<PathBuf>,
}

fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl BootOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// When the memory is too small or too large.
    pub fn validate(self) -> Result<BootConfig, Error> {
        if !(128..=4096).contains(&self.memory) {
            return Err(Error::Memory(self.memory));
        }
        Ok(BootConfig {
            ours: self
                .ours
                .unwrap_or_else(|| crate::peer::find_ours("ringside-vmm")),
            other_builds: self.other_build,
            peers: self.peer,
            rounds: match (self.quick, self.smoke) {
                (true, _) => 3,
                (_, true) => 1,
                _ => self.rounds,
            },
            memory_mib: self.memory,
            kernel: self.kernel,
            slim: self.slim,
            bare: self.bare,
            only: self.only.unwrap_or_default(),
            json: self.json,
        })
    }
}

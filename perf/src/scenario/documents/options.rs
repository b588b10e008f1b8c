//! Options of the scenario: as typed, then as validated.

use std::path::PathBuf;

use clap::Args;

use super::error::Error;
use super::load::Measure;
use crate::scenario::Only;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct DocumentsOptions {
    /// Rounds; in each, every column has a turn at every load
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Seconds that a turn of fio measures; ab and the small files take whole ones
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub seconds: f64,

    /// 3 rounds of 0.4 s, dd of 1,024 blocks
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "smoke"])]
    pub quick: bool,

    /// 1 round of 0.1 s on little data and the cloud kernel, which has no 9p: shows that the harness works
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    pub smoke: bool,

    /// Only loads whose name, such as fio-4k-d32x16-randread, contains one of these
    #[arg(long, value_name = "PATTERN,...")]
    pub only: Option<Only>,

    /// Directory of what is shared, on a file system with room for 1.5 GB
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub tmpfs: PathBuf,

    /// The Rust virtiofsd
    #[arg(long, value_name = "PATH")]
    pub rust_virtiofsd: Option<PathBuf>,

    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct DocumentsConfig {
    pub(super) rounds: u32,
    pub(super) measure: Measure,
    pub(super) smoke: bool,
    pub(super) only: Only,
    pub(super) tmpfs: PathBuf,
    pub(super) rust_virtiofsd: Option<PathBuf>,
    /// Where to write JSON.
    pub json: Option<PathBuf>,
}

impl DocumentsOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// When a turn is too short or too long.
    pub fn validate(self) -> Result<DocumentsConfig, Error> {
        let (rounds, seconds, blocks) = match (self.quick, self.smoke) {
            (true, _) => (3, 0.4, 1024),
            (_, true) => (1, 0.1, 64),
            _ => (self.rounds, self.seconds, 16 * 1024),
        };
        if !(0.05..=600.0).contains(&seconds) {
            return Err(Error::Seconds(seconds));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 50 and 600,000"
        )]
        let milliseconds = (seconds * 1e3) as u64;
        Ok(DocumentsConfig {
            rounds,
            measure: Measure {
                milliseconds,
                seconds: milliseconds.div_ceil(1000),
                blocks,
            },
            smoke: self.smoke,
            only: self.only.unwrap_or_default(),
            tmpfs: self.tmpfs,
            rust_virtiofsd: self.rust_virtiofsd,
            json: self.json,
        })
    }
}

//! Reports read back from what `--json` wrote.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::{Findings, Finds};
use crate::scenario::{blk, boot, fs, net};

/// Why a file is no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what `--json` writes.
    #[error("{} is not what `ringside-perf ... --json` of this version writes", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// Another schema.
    #[error("{}: the schema {schema:?} is not one of this version's: ringside-perf/{{blk,fs,net,boot,findings}}/1", path.display())]
    Schema {
        /// Which file.
        path: PathBuf,
        /// What it says it is.
        schema: String,
    },
}

/// Reads a report of any scenario.
///
/// # Errors
/// When the file is no report.
pub fn load(path: &Path) -> Result<Findings, LoadError> {
    let file = File::open(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let form = |source| LoadError::Form {
        path: path.to_owned(),
        source,
    };
    let value: Value = serde_json::from_reader(BufReader::new(file)).map_err(form)?;
    let schema = value["schema"].as_str().unwrap_or_default().to_owned();
    let findings = match schema.as_str() {
        "ringside-perf/blk/1" => serde_json::from_value(value).map(|it: blk::Report| it.findings()),
        "ringside-perf/fs/1" => serde_json::from_value(value).map(|it: fs::Report| it.findings()),
        "ringside-perf/net/1" => serde_json::from_value(value).map(|it: net::Report| it.findings()),
        "ringside-perf/boot/1" => {
            serde_json::from_value(value).map(|it: boot::Report| it.findings())
        }
        super::SCHEMA => serde_json::from_value(value),
        _ => {
            let path = path.to_owned();
            return Err(LoadError::Schema { path, schema });
        }
    };
    findings.map_err(form)
}

//! `ringside-manuals PREFIX`: writes what `make install` installs beside the programs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

/// Writes manual pages, shell completions and the default configuration below a directory
#[derive(Debug, Parser)]
#[command(name = "ringside-manuals", version)]
struct Options {
    /// The directory that stands for /usr: files go to PREFIX/share
    prefix: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let Options { prefix } = Options::parse();
    ringside_deploy::write(&prefix)
        .with_context(|| format!("cannot write below {}", prefix.display()))?;
    Ok(ExitCode::SUCCESS)
}

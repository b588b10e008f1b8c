//! What was typed, and how it becomes a configuration.

mod disk;
mod error;
mod publish;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use byte_size::ByteSize;
pub use disk::DiskOption;
pub use error::OptionsError;
pub use publish::Publish;
pub use run::{HypervisorChoice, RunOptions};

/// Containers in microVMs, with every device in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "ringside", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The things ringside does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one command in a virtual machine of its own
    Run(Box<RunOptions>),
    /// Say what this host has and what it lacks; exit code 1 when something needed is missing
    Check(CheckOptions),
    /// Work with disk images
    #[command(subcommand)]
    Image(ImageCommand),
}

/// Options of `ringside check`.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// Check the host alone, not whether Ringside's own programs are built
    #[arg(long)]
    pub host: bool,
    /// Print one JSON array instead of lines
    #[arg(long)]
    pub json: bool,
}

/// The things ringside does with disk images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an ext4 image out of a directory
    Build(ImageOptions),
}

/// Options of `ringside image build`.
#[derive(Debug, Args)]
pub struct ImageOptions {
    /// The directory that becomes the image's root
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// The image file; an existing one is replaced once the new one is complete
    #[arg(long, value_name = "IMG")]
    pub out: PathBuf,
    /// Size of the file system, as 2G or 512M [default: what the directory holds, and half as much]
    #[arg(long)]
    pub size: Option<ByteSize>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

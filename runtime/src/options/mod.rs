//! What was typed, and how it becomes a configuration.

mod bundle;
mod disk;
mod error;
mod oci;
mod publish;
mod run;
mod update;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bundle::BundleOptions;
pub use byte_size::ByteSize;
pub use disk::DiskOption;
pub use error::OptionsError;
pub use oci::{
    CreateOptions, DeleteOptions, EventsOptions, ExecOptions, GlobalOptions, HoldOptions,
    IdOptions, KillOptions, ListFormat, ListOptions, LogFormat, OciCommand, PsOptions, SpecOptions,
};
pub use publish::Publish;
pub use run::{HypervisorChoice, RunOptions};
pub use update::UpdateOptions;

/// Containers in microVMs, with every device in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "ringside", version)]
pub struct Cli {
    /// What OCI verbs have in common.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The things ringside does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one command, or a bundle's container, in a virtual machine of its own
    Run(Box<RunOptions>),
    /// Say what this host has and what it lacks; exit code 1 when something needed is missing
    Check(CheckOptions),
    /// Print the configuration in use, and where each value comes from
    Config(ConfigOptions),
    /// Print versions, paths and facts of this host, for a report of something that went wrong
    Env(EnvOptions),
    /// Print a script that completes ringside's command line in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// What an OCI runtime does
    #[command(flatten)]
    Oci(OciCommand),
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

/// Options of `ringside config`.
#[derive(Debug, Args)]
pub struct ConfigOptions {
    /// Read this file and its drop-ins instead of /etc/ringside/config.toml
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Show it for a pod with this annotation, io.ringside.KEY=VALUE (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    pub annotation: Vec<(String, String)>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print a file with every key in a comment instead, to begin with
    #[arg(long, conflicts_with_all = ["file", "annotation", "json"])]
    pub default: bool,
}

fn annotation(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("an annotation is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Options of `ringside env`.
#[derive(Debug, Args)]
pub struct EnvOptions {
    /// Print one JSON object instead of lines
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

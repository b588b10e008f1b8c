//! The `ringside` program: parses, dispatches, reports.

use std::process::ExitCode;

use clap::Parser;
use ringside::options::{Cli, Command, ImageCommand};
use ringside::{check, disk_image, run};
use tracing_subscriber::EnvFilter;

/// Exit code for failures of ringside itself, so that they differ from the command's own codes.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("RINGSIDE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
    let outcome = match cli.command {
        Command::Run(options) => options.validate().and_then(run::run),
        Command::Check(options) => check::report(options.json),
        Command::Image(ImageCommand::Build(options)) => disk_image::command(&options),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ringside: {error:#}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}

//! The `ringside` program: parses, dispatches, reports.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use ringside::options::{Cli, Command, ImageCommand, OciCommand};
use ringside::run::{self, Interrupted};
use ringside::{check, configuration, disk_image, environment, oci};
use tracing_subscriber::EnvFilter;

/// Exit code for failures of ringside itself, so that they differ from the command's own codes.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        // Its standard error is the container's: it logs elsewhere.
        Command::Oci(OciCommand::Hold(_)) => {}
        _ => log(),
    }
    let outcome = match cli.command {
        // It reports by itself, as other OCI verbs.
        Command::Run(options) if options.container.id.is_some() => {
            Ok(oci::run_bundle(&cli.global, &options.container))
        }
        Command::Run(options) => options.validate().map_err(Into::into).and_then(run::run),
        Command::Check(options) => check::report(&options).map_err(Into::into),
        Command::Config(options) => configuration::command(&options),
        Command::Env(options) => environment::report(&options).map_err(Into::into),
        Command::Completions { shell } => complete(shell).map_err(Into::into),
        // It reports by itself, where the engine wants it.
        Command::Oci(command) => Ok(oci::run(&cli.global, command)),
        Command::Image(ImageCommand::Build(options)) => disk_image::command(&options),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
                return ExitCode::from(interrupted.exit_code());
            }
            // With nobody to read it, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "ringside: {error:#}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}

fn log() {
    let filter = EnvFilter::try_from_env("RINGSIDE_LOG");
    // What the shim's client says of connections is in errors, too.
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,ringside_pod=warn,ttrpc=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        // It would panic where standard error is closed.
        .log_internal_errors(false)
        .init();
}

fn complete(shell: clap_complete::Shell) -> std::io::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ringside", &mut script);
    std::io::stdout().write_all(&script).map(|()| 0)
}

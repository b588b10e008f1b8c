//! vhost-user network device daemon.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::control::{self, ControlError};
use vhost_daemon::sandbox::close_inherited;
use vhost_daemon::{daemon, log};
use vhost_user_net::commands::{Capture, Command, PortStats};
use vhost_user_net::options::{Action, CAPABILITIES, CtlCommand, Options};

#[derive(Debug, Error)]
enum CtlError {
    #[error(transparent)]
    Command(#[from] ControlError),
    #[error("the answer cannot be shown")]
    Answer(#[from] serde_json::Error),
    #[error("cannot write {path}")]
    File { path: String, source: io::Error },
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    if let Some(Action::Ctl { socket, command }) = &options.action {
        return daemon::exit_code("vhost-user-net ctl", ctl(socket, command));
    }
    // Whoever starts the daemon may have left a way out open.
    close_inherited(&options.inherited());
    if let Err(error) = log::start(&options.common.log_level) {
        return daemon::exit_code("vhost-user-net", Err(error));
    }
    daemon::exit_code("vhost-user-net", vhost_user_net::run(options))
}

fn ctl(socket: &Path, command: &CtlCommand) -> Result<(), CtlError> {
    match command {
        CtlCommand::Command(command) => {
            for port in control::send::<Vec<PortStats>>(socket, command)? {
                println!("{}", serde_json::to_string(&port)?);
            }
            Ok(())
        }
        CtlCommand::Capture {
            file,
            port,
            snap,
            frames,
        } => {
            let wanted = Command::Capture(Capture {
                port: port.clone(),
                snap: *snap,
                frames: *frames,
            });
            capture(socket, file, &wanted)
        }
    }
}

fn capture(socket: &Path, path: &Path, wanted: &Command) -> Result<(), CtlError> {
    let failed = |source| CtlError::File {
        path: path.display().to_string(),
        source,
    };
    let mut out: Box<dyn Write> = match path.as_os_str() == "-" {
        true => Box::new(io::stdout()),
        false => Box::new(File::create(path).map_err(failed)?),
    };
    let (_, mut copies) = control::follow::<Vec<PortStats>>(socket, wanted)?;
    io::copy(&mut copies, &mut out).map_err(failed)?;
    out.flush().map_err(failed)
}

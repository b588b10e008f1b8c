//! PID 1 of a Ringside guest: prepares the machine, and runs one command and reports its exit code, or
//! serves a pod's containers.
//!
//! Runs from the initramfs as `/init`, linked statically. What it prints goes to the guest's
//! console, which the host keeps for its error messages. A library so that the lab's init can do
//! one thing more.

mod control;
mod init;
mod pod;
mod ports;
mod process;
mod relay;
mod session;
mod shutdown;
mod sys;

use std::path::Path;
use std::process::ExitCode;

use ringside_protocol::CONFIG_PATH;

/// A guest's whole life. `before_command` is called once the machine is prepared, in the root that
/// the command will see; what it fails with is told to the host.
pub fn run(before_command: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "ringside-agent is the first process of a Ringside guest: `ringside run` starts it there"
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = session::run(before_command) {
        eprintln!("ringside-agent: {error:#}");
    }
    shutdown::power_off()
}

/// What the program does: a pod's guest, one command's as [`run`], or a helper of a pod's agent, by how it is
/// started.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    match arguments {
        [_, word, job @ ..] if word == pod::helper::WORD => pod::helper::run(job),
        _ if std::process::id() != 1 || Path::new(CONFIG_PATH).exists() => run(|| Ok(())),
        _ => {
            let error = pod::run();
            eprintln!("ringside-agent: {error:#}");
            shutdown::power_off()
        }
    }
}

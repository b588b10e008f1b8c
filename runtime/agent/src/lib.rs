//! PID 1 of a Ringside guest: prepares the machine, runs one command, reports its exit code.
//!
//! Runs from the initramfs as `/init`, linked statically. What it prints goes to the guest's
//! console, which the host keeps for its error messages. A library so that the lab's init can do
//! one thing more.

mod control;
mod init;
mod ports;
mod process;
mod relay;
mod session;
mod shutdown;
mod sys;

use std::process::ExitCode;

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

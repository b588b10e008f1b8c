//! PID 1 of a Ringside guest: prepares the machine, runs one command, reports its exit code.
//!
//! Runs from the initramfs as `/init`, linked statically. What it prints goes to the guest's
//! console, which `ringside` keeps for its error messages.

mod control;
mod init;
mod ports;
mod process;
mod relay;
mod session;
mod shutdown;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "ringside-agent is the first process of a Ringside guest: `ringside run` starts it there"
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = session::run() {
        eprintln!("ringside-agent: {error:#}");
    }
    shutdown::power_off()
}

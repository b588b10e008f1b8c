//! PID 1 of a Ringside guest: prepares the machine and serves a pod's containers; and of the lab's machine,
//! where it runs one command and reports its exit code ([`run`]).
//!
//! Runs from the initramfs as `/init`, linked statically. What it prints goes to the guest's
//! console, which the host keeps for its error messages. A library for the lab's init.

mod control;
mod init;
mod pod;
mod ports;
mod process;
mod relay;
mod session;
mod shutdown;
mod sys;

use std::process::ExitCode;

/// The lab's machine, from its start to its end. `before_command` is called once the machine is prepared, in the root that
/// the command will see; what it fails with is told to the host.
pub fn run(before_command: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    if !is_first_process() {
        return ExitCode::FAILURE;
    }
    if let Err(error) = session::run(before_command) {
        eprintln!("ringside-agent: {error:#}");
    }
    shutdown::power_off()
}

fn is_first_process() -> bool {
    let is_first = std::process::id() == 1;
    if !is_first {
        eprintln!(
            "this is the first process of a Ringside machine: `ringside run` or the lab starts it there"
        );
    }
    is_first
}

/// What the program does: a pod's guest, or a helper of its agent, by how it is started.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    match arguments {
        [_, word, job @ ..] if word == pod::helper::WORD => pod::helper::run(job),
        _ if !is_first_process() => ExitCode::FAILURE,
        _ => {
            let error = pod::run();
            eprintln!("ringside-agent: {error:#}");
            shutdown::power_off()
        }
    }
}

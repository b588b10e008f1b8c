//! PID 1 of a Ringside guest: prepares the machine and serves a pod's containers.
//!
//! Runs from the initramfs as `/init`, linked statically. What it prints goes to the guest's
//! console, which the host keeps for its error messages. What it does with any bare kernel
//! ([`init`], [`shutdown`]) is also of use to the first process of another machine, the lab's.

pub mod init;
mod pod;
pub mod shutdown;
mod sys;

use std::process::ExitCode;

pub use pod::dry_run;

/// Whether this is the first process of a machine. If not, it says so.
#[must_use]
pub fn is_first_process() -> bool {
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

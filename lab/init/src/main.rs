//! `ringside-lab-init`: PID 1 of the lab's machine, the agent of a Ringside guest that also keeps
//! virtual machines open.

mod keys;

use std::process::ExitCode;

fn main() -> ExitCode {
    ringside_agent::run(keys::hold)
}

//! `ringside-lab-init`: PID 1 of the lab's machine. It runs one command, whose streams go over
//! virtio-serial ports, and keeps virtual machines open meanwhile.

mod control;
mod keys;
mod loopback;
mod ports;
mod process;
mod processors;
mod relay;
mod root;
mod session;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if !ringside_agent::is_first_process() {
        return ExitCode::FAILURE;
    }
    if let Err(error) = session::run() {
        eprintln!("ringside-lab-init: {error:#}");
    }
    ringside_agent::shutdown::power_off()
}

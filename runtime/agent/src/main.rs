//! `ringside-agent`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringside_agent::run(|| Ok(()))
}

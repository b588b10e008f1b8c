//! Says what this host has and what it lacks, one line for each need.

mod needs;

use std::io::{self, Write};

use serde::Serialize;

use crate::options::CheckOptions;

/// How a need is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Ok,
    /// It is not there, and ringside does without.
    Optional,
    /// It is not there, and something does not work.
    Missing,
}

/// One need and how it is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// What is needed, in a word or two.
    pub name: &'static str,
    /// How it is met.
    pub state: State,
    /// What was found; for what is missing, what fails without it and what to do.
    pub message: String,
}

/// Prints all needs and returns the exit code: 1 when something needed is missing.
///
/// # Errors
/// When the needs cannot be printed.
pub fn report(options: &CheckOptions) -> io::Result<u8> {
    let needs = needs::all(options.host);
    match print(&needs, options.json) {
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    let missing = needs.iter().any(|need| need.state == State::Missing);
    Ok(u8::from(missing))
}

fn print(needs: &[Need], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(needs)?);
    }
    needs
        .iter()
        .try_for_each(|need| writeln!(out, "{}", line(need)))
}

fn line(need: &Need) -> String {
    let state = match need.state {
        State::Ok => "ok",
        State::Optional => "optional",
        State::Missing => "MISSING",
    };
    format!("{state:<9} {:<18} {}", need.name, need.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_is_one_line() {
        let needs = needs::all(false);
        assert!(needs.len() > 10);
        for need in needs {
            assert!(!line(&need).contains('\n'), "{need:?}");
        }
    }

    #[test]
    fn the_host_alone_needs_nothing_of_ours() {
        let needs = needs::all(true);
        assert!(needs.iter().all(|need| need.name != "ringside-agent"));
        assert!(needs.iter().any(|need| need.name == "qemu"));
    }
}

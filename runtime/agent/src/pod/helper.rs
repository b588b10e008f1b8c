//! What libcontainer does, each time in a process of its own.
//!
//! libcontainer forks, clones and enters name spaces, which a process with threads must not; and its memory
//! goes with the process. The helper is this program again. It finds its order as arguments, the new
//! process's standard streams as its own, and a socket as descriptor 3: there it says how it went, and waits
//! until the agent closes it. So the agent knows a new process before it can become the agent's child.

mod filtered;
mod inside;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

pub(crate) use inside::run;

use super::children::Children;
use super::error::{Error, Result};
use crate::sys;

/// Says that this program is a helper, as its first argument.
pub(crate) const WORD: &str = "helper";

/// What a helper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Create,
    Start,
    Exec,
    Update,
    Delete,
    /// Makes the pod's process name space.
    Pod,
}

/// Jobs by their names on the command line.
const JOBS: [(&str, Job); 6] = [
    ("create", Job::Create),
    ("start", Job::Start),
    ("exec", Job::Exec),
    ("update", Job::Update),
    ("delete", Job::Delete),
    ("pod", Job::Pod),
];

/// How it went: one line of JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Done; the new process where there is one, else 0.
    Done(u32),
    /// What was asked makes no sense.
    Invalid(String),
    /// It could not be done.
    Failed(String),
}

/// The standard streams of the process that a helper starts.
pub(super) struct Stdio3 {
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

impl Stdio3 {
    pub(super) fn null() -> Self {
        Self {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        }
    }
}

/// Has a helper do its job and returns the id of the process it started. `claim` is told that id before the
/// process can end unseen.
pub(super) fn have_done(
    children: &Children,
    job: Job,
    arguments: &[&OsStr],
    stdio: Stdio3,
    claim: impl FnOnce(u32),
) -> Result<u32> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket for a helper process")?;
    let mut command = command(job, arguments, stdio);
    sys::helper::hand_over(&mut command, OwnedFd::from(theirs));
    children
        .spawn_helper(&mut command)
        .context("cannot start a helper process")?;
    // The command holds the helper's end of the socket: its end would never be seen.
    drop(command);
    let mut reader = BufReader::new(&ours);
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .context("cannot hear from a helper process")?;
    match serde_json::from_str(&line) {
        Ok(Outcome::Done(pid)) => {
            claim(pid);
            Ok(pid)
        }
        Ok(Outcome::Invalid(why)) => Err(Error::invalid("spec", why)),
        Ok(Outcome::Failed(why)) => Err(anyhow!(why).into()),
        Err(_) => Err(anyhow!("the helper process for {job:?} ended without a word").into()),
    }
}

fn command(job: Job, arguments: &[&OsStr], stdio: Stdio3) -> Command {
    let name = JOBS
        .iter()
        .find(|(_, other)| *other == job)
        .map(|(name, _)| *name);
    // The file has no name any more; the link works all the same.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("ringside-agent")
        .arg(WORD)
        .arg(name.unwrap_or_default())
        .args(arguments)
        .env_clear()
        .current_dir(Path::new("/"))
        .stdin(stdio.stdin)
        .stdout(stdio.stdout)
        .stderr(stdio.stderr);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_socket() {
        for outcome in [
            Outcome::Done(7),
            Outcome::Invalid("a \"quote\"\nand a line".to_owned()),
            Outcome::Failed(String::new()),
        ] {
            let line = serde_json::to_string(&outcome).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Outcome>(&line).unwrap(), outcome);
        }
    }
}

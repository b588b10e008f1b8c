//! Starts the process that stands for one in a guest, and hears from it how that went.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use rustix::pipe::pipe;
use serde_json::Value;

use super::OciError;
use super::state::{Entry, StateRoot};
use crate::options::GlobalOptions;

/// Longest report: an error's message, with the console of a guest that did not start.
const LONGEST_REPORT: u64 = 1 << 20;

/// Starts it with this process's standard streams; returns its id once the process in the guest was made.
///
/// # Errors
/// What it says went wrong.
pub(super) fn start(
    global: &GlobalOptions,
    root: &StateRoot,
    entry: &Entry,
    exec: Option<&str>,
    console: Option<&Path>,
) -> Result<u32, OciError> {
    let failed = || OciError::system("start the process that stands for it");
    // Not closed on exec: the child gets the second.
    let (reader, writer) = pipe().map_err(|error| failed()(error.into()))?;
    let program = std::env::current_exe().map_err(failed())?;
    let mut command = Command::new(program);
    command.arg("--root").arg(root.path());
    if global.debug {
        command.arg("--debug");
    }
    command.args(["hold", "--report", &writer.as_raw_fd().to_string()]);
    if let Some(exec) = exec {
        command.args(["--exec", exec]);
    }
    if let Some(console) = console {
        command.arg("--console-socket").arg(console);
    }
    let mut child = command.arg("--").arg(&entry.id).spawn().map_err(failed())?;
    drop(writer);
    let mut line = String::new();
    let mut reader = BufReader::new(File::from(reader).take(LONGEST_REPORT));
    reader.read_line(&mut line).map_err(failed())?;
    let report: Value = match serde_json::from_str(&line) {
        Ok(report) => report,
        Err(_) => {
            let status = child.wait().map_err(failed())?;
            return Err(OciError::Holder(format!(
                "the process that stands for container {} ended early ({status})",
                entry.id
            )));
        }
    };
    if let Some(pid) = report["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
    {
        return Ok(pid);
    }
    // It has nothing left to do but to end.
    let _ = child.wait();
    let message = report["error"].as_str().unwrap_or("it does not say why");
    Err(OciError::Holder(message.to_owned()))
}

/// Writes a process id whole or not at all: engines read the file as soon as it is there.
pub(super) fn write_pid_file(path: &Path, pid: u32) -> Result<(), OciError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    std::fs::write(&new, pid.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(OciError::file("write --pid-file", path))
}

/// A path that is right in another directory, too.
pub(super) fn absolute(path: &Path) -> Result<std::path::PathBuf, OciError> {
    std::path::absolute(path).map_err(OciError::file("find", path))
}

/// No descriptor can enter a machine.
pub(super) fn refuse_descriptors(count: u32) -> Result<(), OciError> {
    if count == 0 {
        return Ok(());
    }
    Err(OciError::usage(format!(
        "--preserve-fds {count}: a descriptor of the host cannot be given to a process in a machine"
    )))
}

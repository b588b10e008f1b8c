//! `ringside exec`: one more process in a container.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use oci_spec::runtime::{Process, UserBuilder};
use ringside_pod::spec;

use super::OciError;
use super::holder::{self, Ends};
use super::start_holder;
use super::state::{Entry, Record, StateRoot};
use super::status::Status;
use crate::options::{ExecOptions, GlobalOptions};

/// Runs it; returns its exit code, or 0 for one that goes on alone.
pub(super) fn exec(
    global: &GlobalOptions,
    root: &StateRoot,
    options: &ExecOptions,
) -> Result<u8, OciError> {
    start_holder::refuse_descriptors(options.preserve_fds)?;
    let (entry, record) = root.find(&options.id)?;
    let status = Status::of(root, &entry, &record);
    if status != Status::Running {
        return Err(OciError::Status {
            verb: "run a process in",
            id: options.id.clone(),
            status: status.name(),
        });
    }
    let process = process(options, &record)?;
    let terminal = process.terminal().unwrap_or(false);
    check_terminal(options, terminal)?;
    let name = format!("exec-{}", std::process::id());
    prepare(&entry, &name, &process)?;
    let held = hold(global, root, &entry, &name, options, terminal);
    if held.is_err() {
        // With its container it goes at last.
        let _ = std::fs::remove_dir_all(entry.file(&name));
    }
    held
}

fn hold(
    global: &GlobalOptions,
    root: &StateRoot,
    entry: &Entry,
    name: &str,
    options: &ExecOptions,
    terminal: bool,
) -> Result<u8, OciError> {
    let mut tell = |pid| match &options.pid_file {
        Some(file) => start_holder::write_pid_file(file, pid),
        None => Ok(()),
    };
    if options.detach {
        let console = options.console_socket.as_deref();
        let console = console.map(start_holder::absolute).transpose()?;
        let pid = start_holder::start(global, root, entry, Some(name), console.as_deref())?;
        return tell(pid).map(|()| 0);
    }
    let ends = if terminal {
        Ends::OwnTerminal
    } else {
        Ends::Own
    };
    let code = holder::hold_exec(root, entry, name, ends, &mut tell)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn check_terminal(options: &ExecOptions, terminal: bool) -> Result<(), OciError> {
    let wrong = match (terminal, options.detach, &options.console_socket) {
        (true, true, None) => "a process with a terminal that goes on alone needs --console-socket",
        (true, false, Some(_)) => "--console-socket goes with --detach",
        (false, _, Some(_)) => "--console-socket is for a process with a terminal: give --tty",
        _ => return Ok(()),
    };
    Err(OciError::usage(wrong))
}

/// The process: as a file has it, or the container's own with another command.
fn process(options: &ExecOptions, record: &Record) -> Result<Process, OciError> {
    let mut process = match &options.process {
        Some(path) => read(path)?,
        None if options.command.is_empty() => {
            return Err(OciError::usage("a command is missing, or --process FILE"));
        }
        None => {
            let specification = spec::read(&record.bundle)?;
            let mut process = specification.process().clone().unwrap_or_default();
            process.set_args(Some(options.command.clone()));
            process.set_terminal(Some(options.tty));
            process
        }
    };
    if options.tty {
        process.set_terminal(Some(true));
    }
    if let Some(folder) = &options.cwd {
        process.set_cwd(folder.clone());
    }
    if let Some(user) = &options.user {
        process.set_user(parse_user(user)?);
    }
    if !options.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(options.env.iter().cloned());
        process.set_env(Some(env));
    }
    Ok(process)
}

fn read(path: &Path) -> Result<Process, OciError> {
    let text = std::fs::read(path).map_err(OciError::file("read --process", path))?;
    serde_json::from_slice(&text).map_err(|source| OciError::Malformed {
        path: path.to_owned(),
        source,
    })
}

/// `UID` or `UID:GID`.
fn parse_user(text: &str) -> Result<oci_spec::runtime::User, OciError> {
    let wrong = || {
        OciError::usage(format!(
            "--user {text}: must be UID or UID:GID, both numbers"
        ))
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let (uid, gid): (u32, u32) = (
        uid.parse().map_err(|_| wrong())?,
        gid.parse().map_err(|_| wrong())?,
    );
    UserBuilder::default()
        .uid(uid)
        .gid(gid)
        .build()
        .map_err(|_| wrong())
}

/// Its directory, with its `process` object.
fn prepare(entry: &Entry, name: &str, process: &Process) -> Result<(), OciError> {
    let folder = entry.file(name);
    // Of an earlier process of this id that was killed.
    let _ = std::fs::remove_dir_all(&folder);
    let made = DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(OciError::file("make", &folder))?;
    let file = folder.join("process.json");
    let text = serde_json::to_vec(process).map_err(|source| OciError::Malformed {
        path: file.clone(),
        source,
    })?;
    std::fs::write(&file, text).map_err(OciError::file("write", &file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let user = parse_user("1000:100").unwrap();
        assert_eq!((user.uid(), user.gid()), (1000, 100));
        assert_eq!(parse_user("7").unwrap().gid(), 0);
        for text in ["", "root", "1:", "-1"] {
            assert!(parse_user(text).is_err(), "{text}");
        }
    }
}

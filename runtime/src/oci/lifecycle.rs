//! From `create` to `delete`.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oci_spec::runtime::Spec;
use ringside_pod::grouping::{Membership, membership};
use ringside_pod::identity::Identity;
use ringside_pod::{chain, hook, spec};

use super::OciError;
use super::holder::clean_up;
use super::report::rfc3339;
use super::state::{Entry, Record, StateRoot};
use super::status::{self, Status};
use super::{member, rights, signal, start_holder};
use crate::options::{CreateOptions, DeleteOptions, GlobalOptions, KillOptions};

/// How long a killed container may take to end, its machine included.
const END: Duration = Duration::from_secs(60);
/// How long a killed process of this host may take.
const KILL: Duration = Duration::from_secs(10);

pub(super) const SIGKILL: u32 = 9;

/// `ringside create`.
pub(super) fn create(
    global: &GlobalOptions,
    root: &StateRoot,
    options: &CreateOptions,
) -> Result<(), OciError> {
    start_holder::refuse_descriptors(options.preserve_fds)?;
    let console = options.console_socket.as_deref();
    let console = console.map(start_holder::absolute).transpose()?;
    let entry = prepare(root, &options.id, &options.bundle, |terminal| {
        check_terminal(terminal, console.is_some())
    })?;
    let made = start_holder::start(global, root, &entry, None, console.as_deref());
    let made = made.and_then(|pid| match &options.pid_file {
        Some(file) => start_holder::write_pid_file(file, pid),
        None => Ok(()),
    });
    if made.is_err()
        && let Err(error) = abandon(root, &entry)
    {
        tracing::warn!("container {} is left behind: {}", entry.id, chain(&error));
    }
    made
}

/// Nothing stays of a container that was not made, or whose maker was not told.
fn abandon(root: &StateRoot, entry: &Entry) -> Result<(), OciError> {
    end(root, entry)?;
    let record = entry.read()?;
    if record.sandbox.is_some() {
        member::leave(root, entry, &record)?;
    }
    entry.remove()
}

/// Makes the directory of a container that can be had. Whether its process has a terminal `terminal` is told, and
/// may refuse.
pub(super) fn prepare(
    root: &StateRoot,
    id: &str,
    bundle: &Path,
    terminal: impl FnOnce(bool) -> Result<(), OciError>,
) -> Result<Entry, OciError> {
    let entry = root.entry(id)?;
    let found = bundle.canonicalize();
    let bundle = found.map_err(OciError::file("find the bundle", bundle))?;
    let specification = spec::read(&bundle)?;
    check(&specification, id, &bundle)?;
    let process = specification.process().as_ref();
    terminal(process.and_then(|it| it.terminal()).unwrap_or(false))?;
    rights::check(&specification)?;
    let record = record(root, id, bundle, &specification)?;
    entry.make(&record)?;
    Ok(entry)
}

/// What cannot be carried out is said before anything is begun.
fn check(specification: &Spec, id: &str, bundle: &Path) -> Result<(), OciError> {
    let plan = spec::plan(specification.clone(), id, bundle).map_err(|source| OciError::Spec {
        id: id.to_owned(),
        source,
    })?;
    if !plan.root.source.is_dir() {
        let source = std::io::ErrorKind::NotADirectory.into();
        return Err(OciError::file("use as root.path", &plan.root.source)(
            source,
        ));
    }
    Ok(())
}

fn check_terminal(terminal: bool, console: bool) -> Result<(), OciError> {
    match (terminal, console) {
        (true, false) => Err(OciError::usage(
            "process.terminal of config.json is true: say with --console-socket where the terminal goes",
        )),
        (false, true) => Err(OciError::usage(
            "--console-socket is for a container with a terminal: process.terminal of config.json is not true",
        )),
        _ => Ok(()),
    }
}

fn record(
    root: &StateRoot,
    id: &str,
    bundle: PathBuf,
    specification: &Spec,
) -> Result<Record, OciError> {
    let annotations: HashMap<_, _> = specification.annotations().clone().unwrap_or_default();
    let sandbox = match membership(id, &annotations) {
        Membership::First => None,
        Membership::In(sandbox) => {
            let (entry, record) = root.find(&sandbox)?;
            match Status::of(root, &entry, &record) {
                Status::Stopped => {
                    return Err(OciError::usage(format!(
                        "container {id} belongs to sandbox {sandbox}, which does not run"
                    )));
                }
                _ => Some(sandbox),
            }
        }
    };
    Ok(Record {
        bundle,
        created: rfc3339(SystemTime::now()),
        owner: rustix::process::getuid().as_raw(),
        oci_version: specification.version().clone(),
        annotations,
        sandbox,
        holder: None,
        is_made: false,
        exit: None,
    })
}

/// A container, in one of these states.
pub(super) fn in_state(
    root: &StateRoot,
    id: &str,
    verb: &'static str,
    allowed: &[Status],
) -> Result<super::task::Task, OciError> {
    let (entry, record) = root.find(id)?;
    let status = Status::of(root, &entry, &record);
    if !allowed.contains(&status) {
        return Err(OciError::Status {
            verb,
            id: id.to_owned(),
            status: status.name(),
        });
    }
    status::task(root, &entry, &record)
}

/// `ringside start`.
pub(super) fn start(root: &StateRoot, id: &str) -> Result<(), OciError> {
    in_state(root, id, "start", &[Status::Created])?.start("")
}

/// `ringside kill`.
pub(super) fn kill(root: &StateRoot, options: &KillOptions) -> Result<(), OciError> {
    let number = signal::parse(&options.signal)?;
    let allowed = [Status::Created, Status::Running, Status::Paused];
    in_state(root, &options.id, "kill", &allowed)?.kill("", number, options.all)
}

/// `ringside pause`.
pub(super) fn pause(root: &StateRoot, id: &str) -> Result<(), OciError> {
    in_state(root, id, "pause", &[Status::Running])?.pause()
}

/// `ringside resume`.
pub(super) fn resume(root: &StateRoot, id: &str) -> Result<(), OciError> {
    in_state(root, id, "resume", &[Status::Paused])?.resume()
}

/// `ringside delete`.
pub(super) fn delete(root: &StateRoot, options: &DeleteOptions) -> Result<(), OciError> {
    let id = &options.id;
    let entry = root.entry(id)?;
    let lock = match entry.lock() {
        Err(OciError::NoContainer(_)) if options.force => return Ok(()),
        lock => lock?,
    };
    // Whoever held the lock may have removed it.
    let record = match entry.read() {
        Err(OciError::NoContainer(_)) if options.force => return entry.remove(),
        record => record?,
    };
    let status = Status::of(root, &entry, &record);
    if !options.force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(OciError::Status {
            verb: "delete",
            id: id.clone(),
            status: status.name(),
        });
    }
    end(root, &entry)?;
    forget(root, &entry, &record)?;
    drop(lock);
    entry.remove()
}

/// Ends a container and all that is left of it, whatever it does.
fn end(root: &StateRoot, entry: &Entry) -> Result<(), OciError> {
    let record = entry.read()?;
    let is_member = record.sandbox.is_some();
    let lives = record.holder.as_ref().is_some_and(Identity::lives);
    // A member runs without its holder, too; the first one's pod ends with it.
    let asked = if lives || is_member {
        let task = status::task(root, entry, &record);
        task.and_then(|task| match is_member {
            true => member::kill(&task),
            false => task.kill("", SIGKILL, true),
        })
    } else {
        Ok(())
    };
    if let Err(error) = &asked {
        tracing::debug!("{}", chain(error));
    }
    let Some(holder) = &record.holder else {
        return Ok(());
    };
    let patience = if asked.is_ok() { END } else { KILL };
    if !holder.wait(patience) {
        holder.kill();
        let _ = holder.wait(KILL);
    }
    // One that ended by itself has removed its pod, too.
    if !is_member && entry.read()?.exit.is_none() {
        clean_up(entry);
    }
    Ok(())
}

/// Tells the pod, if it goes on, or runs the hooks that come last.
///
/// # Errors
/// When the pod goes on with it.
pub(super) fn forget(root: &StateRoot, entry: &Entry, record: &Record) -> Result<(), OciError> {
    if record.sandbox.is_none() || !member::leave(root, entry, record)? {
        run_last_hooks(entry, record);
    }
    Ok(())
}

fn run_last_hooks(entry: &Entry, record: &Record) {
    let plan = spec::read(&record.bundle)
        .ok()
        .and_then(|it| spec::plan(it, &entry.id, &record.bundle).ok());
    let Some(plan) = plan.filter(|plan| !plan.hooks.poststop.is_empty()) else {
        return;
    };
    let state = serde_json::from_value(status::state(entry, record, Status::Stopped));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Ok(state), Ok(runtime)) = (state, runtime) else {
        tracing::warn!("the poststop hooks of {} were not run", entry.id);
        return;
    };
    runtime.block_on(hook::run_all("poststop", &plan.hooks.poststop, &state));
}

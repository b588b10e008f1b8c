//! The process that stands on the host for one process in a guest.
//!
//! It has the standard streams that the engine gave it and moves their bytes to FIFOs of the shim's; it passes
//! signals on, and ends as the process in the guest does, with its code. Of a pod's first container it is
//! also the parent of the shim: what ends it ends the pod.

mod console;
mod relay;
mod serve;
mod shim;

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use ringside_pod::identity::Identity;
use ringside_pod::{chain, spec};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use self::console::Console;
use self::relay::Relays;
use self::serve::{Event, Served};
use self::shim::Shim;
pub(super) use self::shim::{LOG, clean_up};
use super::OciError;
use super::state::{Entry, Record, StateRoot};
use super::status;
use super::task::Task;
use crate::options::{GlobalOptions, HoldOptions};
use crate::sys::descriptor;

/// What a process gets that SIGKILL ended.
pub(super) const KILLED: u32 = 128 + 9;

/// Where a process's streams are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends<'a> {
    /// This process's own standard streams.
    Own,
    /// This process's own terminal.
    OwnTerminal,
    /// A terminal made for it, and sent through this socket.
    Console(&'a std::path::Path),
}

/// Who waits to hear that the process was made, by a line of JSON.
struct Report(File);

impl Report {
    /// Opens the pipe again: the inherited descriptor is nobody's in particular.
    fn open(number: u32) -> Result<Self, OciError> {
        let path = format!("/proc/self/fd/{number}");
        let file = File::options().write(true).open(&path);
        file.map(Self)
            .map_err(OciError::file("open", path.as_ref()))
    }

    fn tell(mut self, answer: &serde_json::Value) -> Result<(), OciError> {
        writeln!(self.0, "{answer}").map_err(OciError::system("tell who started this process"))
    }
}

/// `ringside hold`: returns the exit code of the process in the guest.
pub(super) fn hold(global: &GlobalOptions, root: &StateRoot, options: &HoldOptions) -> u8 {
    let held = || {
        let report = Report::open(options.report)?;
        descriptor::close_on_exec().map_err(OciError::system("keep descriptors"))?;
        rustix::process::setsid().map_err(OciError::system("begin a session"))?;
        let entry = root.entry(&options.id)?;
        // The caller's may be unmounted; and the shim logs to where it is.
        std::env::set_current_dir(entry.path()).map_err(OciError::file("enter", entry.path()))?;
        log(&entry);
        Ok((report, entry))
    };
    let (report, entry) = match held() {
        Ok(held) => held,
        // The parent sees the pipe's end.
        Err(error) => {
            let error: OciError = error;
            tracing::error!("{}", chain(&error));
            return 1;
        }
    };
    let ends = options.console_socket.as_deref();
    let ends = ends.map_or(Ends::Own, Ends::Console);
    let mut report = Some(report);
    let mut tell = |pid: u32| match report.take() {
        Some(report) => report.tell(&json!({"pid": pid})),
        None => Ok(()),
    };
    let code = match &options.exec {
        None => hold_container(global, root, &entry, ends, &mut tell),
        Some(exec) => hold_exec(root, &entry, exec, ends, &mut tell),
    };
    match code {
        Ok(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Err(error) => {
            tracing::error!("{}", chain(&error));
            if let Some(report) = report.take() {
                // With nobody to read it there is nobody to tell.
                let _ = report.tell(&json!({"error": chain(&error)}));
            }
            1
        }
    }
}

/// This process's standard error is the container's: its own words are with the shim's.
fn log(entry: &Entry) {
    let file = File::options()
        .append(true)
        .create(true)
        .open(entry.file(LOG));
    let Ok(file) = file else {
        return;
    };
    let filter = EnvFilter::try_from_env("RINGSIDE_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,ttrpc=off"));
    // It is the first of this process.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .try_init();
}

/// Makes a container and stands for it until it has ended; `tell` is called when it was made.
///
/// # Errors
/// When it cannot be made, or `tell` fails; then its pod is gone, if it began with it.
pub(super) fn hold_container(
    global: &GlobalOptions,
    root: &StateRoot,
    entry: &Entry,
    ends: Ends<'_>,
    tell: &mut dyn FnMut(u32) -> Result<(), OciError>,
) -> Result<u32, OciError> {
    let mut record = entry.read()?;
    record.holder = Some(Identity::own());
    entry.write(&record)?;
    let (events, inbox) = channel();
    let shim = match record.sandbox {
        None => Some(Shim::start(entry, global.debug, events.clone())?),
        Some(_) => None,
    };
    let served = make(root, entry, &mut record, ends, events);
    let served = match served {
        Ok(served) => served,
        Err(error) => {
            stop(shim, entry);
            return Err(error);
        }
    };
    // Where nobody wants it any more, or it does not start, there is no reason for it.
    let told = tell(std::process::id());
    let code = match &told {
        Ok(()) => {
            let code = served.until_the_end(&inbox);
            served.drain(&inbox);
            code
        }
        Err(_) => KILLED,
    };
    stop(shim, entry);
    record.exit = Some(code);
    entry.write(&record)?;
    told.map(|()| code)
}

fn stop(shim: Option<Shim>, entry: &Entry) {
    if let Some(shim) = shim {
        shim.stop(entry);
    }
}

fn make(
    root: &StateRoot,
    entry: &Entry,
    record: &mut Record,
    ends: Ends<'_>,
    events: std::sync::mpsc::Sender<Event>,
) -> Result<Served, OciError> {
    let spec = spec::read(&record.bundle)?;
    let terminal = spec.process().as_ref().and_then(|it| it.terminal());
    let task = status::task(root, entry, record)?;
    let served = Served::prepare(
        task,
        status::task(root, entry, record)?,
        "",
        entry.path(),
        ends,
        terminal.unwrap_or(false),
        events,
    )?;
    served.task().create(&record.bundle, served.stdio())?;
    served.follow_window();
    record.is_made = true;
    entry.write(record)?;
    Ok(served)
}

/// Starts a further process, whose `process` object is in the directory `exec` of the container's, and stands for
/// it until it has ended.
///
/// # Errors
/// When it cannot be started.
pub(super) fn hold_exec(
    root: &StateRoot,
    entry: &Entry,
    exec: &str,
    ends: Ends<'_>,
    tell: &mut dyn FnMut(u32) -> Result<(), OciError>,
) -> Result<u32, OciError> {
    let folder = entry.file(exec);
    let file = folder.join("process.json");
    let process = std::fs::read(&file).map_err(OciError::file("read", &file))?;
    let record = entry.read()?;
    let (events, inbox) = channel();
    let connect = || -> Result<Task, OciError> { status::task(root, entry, &record) };
    let served = Served::prepare(
        connect()?,
        connect()?,
        exec,
        &folder,
        ends,
        ends != Ends::Own,
        events,
    )?;
    served.task().exec(exec, process, served.stdio())?;
    served.follow_window();
    let code = served.task().start(exec).and_then(|()| {
        tell(std::process::id())?;
        Ok(served.until_the_end(&inbox))
    });
    if code.is_ok() {
        served.drain(&inbox);
    }
    // One whose pod is gone has nothing to be forgotten.
    if let Err(error) = served.task().delete(exec) {
        tracing::debug!("{}", chain(&error));
    }
    // The container may have been removed in the meantime, with all that is in it.
    let _ = std::fs::remove_dir_all(&folder);
    code
}

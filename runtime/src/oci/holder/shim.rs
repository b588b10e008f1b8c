//! The shim of a pod, held by the process that stands for the pod's first container.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use containerd_shim_protos::api;
use containerd_shim_protos::shim_sync::{Events, create_events};
use containerd_shim_protos::ttrpc::{self, Server, TtrpcContext};
use ringside_pod::identity::Identity;
use ringside_pod::{chain, programs};

use super::super::OciError;
use super::super::state::Entry;
use super::super::task::Task;
use super::serve::Event;

/// The variable by which the shim knows whom to end with.
const HOLDER: &str = "RINGSIDE_SHIM_HOLDER";
/// Where containerd would be told of events.
const EVENTS: &str = "TTRPC_ADDRESS";
/// The shim's log in the container's directory.
pub(in crate::oci) const LOG: &str = "log";

/// How long a guest may take to write back and switch itself off, twice what the shim gives it.
const SWITCH_OFF: Duration = Duration::from_secs(25);

/// Longest path of a unix socket (`sun_path` in unix(7)) without its final zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// Bytes of a log that go into an error.
const LAST_WORDS: usize = 1024;

/// A shim that serves.
pub(super) struct Shim {
    process: Identity,
    /// What it tells of events goes nowhere: who wants to know asks.
    _events: Server,
}

struct Sink;

impl Events for Sink {
    fn forward(&self, _: &TtrpcContext, _: api::ForwardRequest) -> ttrpc::Result<api::Empty> {
        Ok(api::Empty::new())
    }
}

impl Shim {
    /// Starts it, as a child that the kernel ends with the calling thread, and returns when it listens.
    ///
    /// # Errors
    /// When it is nowhere or does not listen.
    pub(super) fn start(entry: &Entry, debug: bool, ends: Sender<Event>) -> Result<Self, OciError> {
        let program = programs::SHIM.find()?;
        let (socket, sink) = (entry.socket(), entry.file("events.sock"));
        let length = sink.as_os_str().len();
        if length > LONGEST_SOCKET_PATH {
            return Err(OciError::usage(format!(
                "{} is {length} bytes long, a socket's path has at most {LONGEST_SOCKET_PATH}: \
                 use a shorter id or --root",
                sink.display()
            )));
        }
        let events = serve_events(&sink).map_err(|source| OciError::NoAnswer {
            id: entry.id.clone(),
            source,
        })?;
        let address = format!("unix://{}", socket.display());
        let write = |name, text: &str| {
            let path = entry.file(name);
            fs::write(&path, text).map_err(OciError::file("write", &path))
        };
        // As containerd does, so that the shim's `delete` finds it.
        write("address", &address)?;
        let mut command = Command::new(&program);
        command.current_dir(entry.path());
        command.args(["-namespace", &entry.namespace, "-id", &entry.id]);
        command.args(["-socket", &address]);
        if debug {
            command.arg("-debug");
        }
        // What is typed on the holder's terminal is not for it.
        command.process_group(0);
        command.env(EVENTS, &sink);
        command.env(HOLDER, std::process::id().to_string());
        let log = File::options()
            .append(true)
            .create(true)
            .open(entry.file(LOG));
        let log = log.map_err(OciError::file("open", &entry.file(LOG)))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let child = command.spawn().map_err(OciError::file("start", &program))?;
        listen(child, entry, ends).map(|process| Self {
            process,
            _events: events,
        })
    }

    /// Switches the guest off and removes what is left of the pod.
    pub(super) fn stop(self, entry: &Entry) {
        let asked = Task::connect(&entry.socket(), &entry.id).and_then(|task| task.shutdown());
        if let Err(error) = asked {
            tracing::debug!("{}", chain(&error));
        }
        if !self.process.wait(SWITCH_OFF) {
            self.process.kill();
            let _ = self.process.wait(SWITCH_OFF);
        }
        clean_up(entry);
    }
}

fn serve_events(path: &Path) -> ttrpc::Result<Server> {
    // Of an earlier container of this id, whose directory was never removed: there is none.
    let mut server = Server::new()
        .bind(&format!("unix://{}", path.display()))?
        .register_service(create_events(Arc::new(Sink)));
    server.start()?;
    Ok(server)
}

/// Waits until it listens: then it lets go of its standard output. A thread waits for its end.
fn listen(mut child: Child, entry: &Entry, ends: Sender<Event>) -> Result<Identity, OciError> {
    let process = Identity::of(child.id());
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        // A failure to read is the end as well.
        let _ = output.read_to_end(&mut said);
    }
    if let Err(error) = Task::connect(&entry.socket(), &entry.id) {
        process.kill();
        // It was killed.
        let _ = child.wait();
        let log = fs::read(entry.file(LOG)).unwrap_or_default();
        let last =
            String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS)..]).into_owned();
        return Err(OciError::Holder(format!(
            "{}; {}",
            chain(&error),
            last.trim()
        )));
    }
    std::thread::spawn(move || {
        // It is this thread's to wait for.
        let _ = child.wait();
        let _ = ends.send(Event::ShimEnd);
    });
    Ok(process)
}

/// Has the shim's program remove what a shim left that did not end by itself.
pub(in crate::oci) fn clean_up(entry: &Entry) {
    let Ok(program) = programs::SHIM.find() else {
        return;
    };
    let mut command = Command::new(program);
    command.current_dir(entry.path());
    command.args(["-namespace", &entry.namespace, "-id", &entry.id, "delete"]);
    command.env(EVENTS, entry.file("events.sock"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("the pod of {} may be left behind: {status}", entry.id),
        Err(error) => tracing::warn!("the pod of {} may be left behind: {error}", entry.id),
    }
}

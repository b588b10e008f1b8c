//! Containers and processes in a guest, as a host would run them.

use std::collections::VecDeque;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringside_protocol::agent::event::What;
use ringside_protocol::agent::{
    ContainerRequest, CreateContainerRequest, Event, EventsRequest, ExecRequest, Exit,
    ProcessRequest, SignalRequest, StartSandboxRequest, StatsResponse, Storage, Streams,
};
use serde_json::Value;
use ttrpc::context::{Context, with_duration};

use crate::guest::Guest;

/// Nothing takes longer, however slow the host is.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn patient() -> Context {
    with_duration(PATIENCE)
}

/// A guest that is a pod's, and what the host knows of its events.
pub(crate) struct Pod {
    pub(crate) guest: Guest,
    last_event: u64,
    events: VecDeque<Event>,
    streams: u32,
}

/// The host's ends of a process's streams.
pub(crate) struct Ends {
    pub(crate) stdin: UnixStream,
    pub(crate) stdout: UnixStream,
    pub(crate) stderr: Option<UnixStream>,
}

/// What a process said and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: u32,
}

impl Pod {
    pub(crate) fn start(test: &str, request: impl FnOnce(&mut StartSandboxRequest)) -> Self {
        let guest = Guest::boot(test);
        let mut sandbox = StartSandboxRequest::new();
        sandbox.hostname = "pod".to_owned();
        let mut shared = Storage::new();
        shared.set_virtiofs("shared".to_owned());
        shared.mount_point = "/pod".to_owned();
        sandbox.storages.push(shared);
        request(&mut sandbox);
        guest.agent.start_sandbox(patient(), &sandbox).unwrap();
        Self {
            guest,
            last_event: 0,
            events: VecDeque::new(),
            streams: 0,
        }
    }

    /// Streams of new names, and the host's ends.
    pub(crate) fn streams(&mut self, terminal: bool) -> (Streams, Ends) {
        self.streams += 1;
        let mut names = Streams::new();
        names.stdin = format!("s{}/in", self.streams);
        names.stdout = format!("s{}/out", self.streams);
        if !terminal {
            names.stderr = format!("s{}/err", self.streams);
        }
        let ends = Ends {
            stdin: self.guest.stream(&names.stdin),
            stdout: self.guest.stream(&names.stdout),
            stderr: (!terminal).then(|| self.guest.stream(&names.stderr)),
        };
        (names, ends)
    }

    /// Creates and starts a container.
    pub(crate) fn run(&mut self, name: &str, spec: &Value) -> Ends {
        let ends = self.create(name, spec).unwrap();
        self.guest
            .agent
            .start_container(patient(), &container(name))
            .unwrap();
        ends
    }

    pub(crate) fn create(&mut self, name: &str, spec: &Value) -> ttrpc::Result<Ends> {
        self.create_on(name, spec, &[])
    }

    fn create_on(&mut self, name: &str, spec: &Value, storages: &[Storage]) -> ttrpc::Result<Ends> {
        let (streams, ends) = self.streams(spec["process"]["terminal"] == true);
        let mut request = CreateContainerRequest::new();
        request.container = name.to_owned();
        request.storages = storages.to_vec();
        request.spec = spec.to_string().into_bytes();
        request.streams = Some(streams).into();
        self.guest.agent.create_container(patient(), &request)?;
        Ok(ends)
    }

    pub(crate) fn exec(
        &mut self,
        container: &str,
        exec: &str,
        process: &Value,
    ) -> ttrpc::Result<Ends> {
        let (request, ends) = self.exec_request(container, exec, process);
        self.guest.agent.exec(patient(), &request)?;
        Ok(ends)
    }

    /// What would start a further process, and its streams.
    pub(crate) fn exec_request(
        &mut self,
        container: &str,
        exec: &str,
        process: &Value,
    ) -> (ExecRequest, Ends) {
        let (streams, ends) = self.streams(process["terminal"] == true);
        let mut request = ExecRequest::new();
        request.container = container.to_owned();
        request.exec = exec.to_owned();
        request.process = process.to_string().into_bytes();
        request.streams = Some(streams).into();
        (request, ends)
    }

    /// Runs a process in a container to its end.
    pub(crate) fn output(&mut self, container: &str, process: &Value) -> Output {
        let exec = format!("e{}", self.streams);
        let ends = self.exec(container, &exec, process).unwrap();
        let output = self.finish(container, &exec, ends);
        let mut request = ProcessRequest::new();
        request.container = container.to_owned();
        request.exec = exec;
        self.guest
            .agent
            .delete_process(patient(), &request)
            .unwrap();
        output
    }

    /// Runs a container to its end and deletes it.
    pub(crate) fn container(&mut self, name: &str, spec: &Value) -> Output {
        let ends = self.run(name, spec);
        let output = self.finish(name, "", ends);
        self.delete(name);
        output
    }

    /// The same with storages of its own.
    pub(crate) fn container_on(
        &mut self,
        name: &str,
        spec: &Value,
        storages: &[Storage],
    ) -> Output {
        let ends = self.create_on(name, spec, storages).unwrap();
        self.guest
            .agent
            .start_container(patient(), &container(name))
            .unwrap();
        let output = self.finish(name, "", ends);
        self.delete(name);
        output
    }

    /// Waits until a container's statistics are as they are to be.
    pub(crate) fn wait_for(&self, name: &str, is_so: impl Fn(&StatsResponse) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.guest.agent.stats(patient(), &container(name)).unwrap();
            if is_so(&stats) {
                return;
            }
            assert!(Instant::now() < deadline, "{stats}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything a process says until it has ended.
    pub(crate) fn finish(&mut self, container: &str, exec: &str, ends: Ends) -> Output {
        let _ = ends.stdin.shutdown(Shutdown::Write);
        let errors = ends
            .stderr
            .map(|stderr| std::thread::spawn(move || read_all(stderr)));
        let stdout = read_all(ends.stdout);
        let stderr = errors
            .map(|thread| thread.join().unwrap())
            .unwrap_or_default();
        let code = self.exit(container, exec).code;
        Output {
            stdout,
            stderr,
            code,
        }
    }

    pub(crate) fn delete(&self, name: &str) {
        self.guest
            .agent
            .delete_container(patient(), &container(name))
            .unwrap();
    }

    pub(crate) fn signal(&self, name: &str, exec: &str, signal: u32) {
        let mut request = SignalRequest::new();
        request.container = name.to_owned();
        request.exec = exec.to_owned();
        request.signal = signal;
        self.guest.agent.signal(patient(), &request).unwrap();
    }

    /// Waits for the end of one process; events of others stay.
    pub(crate) fn exit(&mut self, container: &str, exec: &str) -> Exit {
        let event = self.event(|what| matches!(what, What::Exit(exit) if exit.container == container && exit.exec == exec));
        let Some(What::Exit(exit)) = event.what else {
            unreachable!("asked for an exit")
        };
        exit
    }

    /// Waits for an event and takes it out.
    pub(crate) fn event(&mut self, is_it: impl Fn(&What) -> bool) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self
                .events
                .iter()
                .position(|event| event.what.as_ref().is_some_and(&is_it));
            if let Some(event) = found.and_then(|at| self.events.remove(at)) {
                return event;
            }
            assert!(
                Instant::now() < deadline,
                "no such event; console: {}",
                self.guest.console()
            );
            let mut request = EventsRequest::new();
            request.after = self.last_event;
            request.timeout_ms = 5000;
            let events = self.guest.agent.events(patient(), &request).unwrap().events;
            for event in events {
                assert_eq!(event.number, self.last_event + 1, "events have no gaps");
                self.last_event = event.number;
                self.events.push_back(event);
            }
        }
    }
}

/// Reads one line of a process's output, which must be this.
pub(crate) fn read_line(stream: &mut UnixStream, expected: &str) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    assert_eq!(String::from_utf8_lossy(&line), expected);
}

/// A stream may be silent for as long as another of its process's is busy.
fn read_all(mut stream: UnixStream) -> String {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn container(name: &str) -> ContainerRequest {
    let mut request = ContainerRequest::new();
    request.container = name.to_owned();
    request
}

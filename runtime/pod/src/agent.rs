//! The host's side of the agent's service.

use std::path::Path;
use std::time::Duration;

use ringside_protocol::agent::tokio::AgentClient;
use ringside_protocol::agent::{
    CreateContainerRequest, Empty, EventsRequest, EventsResponse, ExecRequest, HelloRequest,
    HelloResponse, PidsResponse, ProcessRequest, ResizeRequest, SignalRequest, StartSandboxRequest,
    StatsResponse, StatsResponse as Stats, UpdateRequest, WindowSize,
};
use ringside_protocol::{agent::ContainerRequest, port};
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{Context, with_duration};

use crate::{PodError, stream};

/// How long the agent may take over a call. A translated guest on a busy host is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long one question for events waits for some.
const EVENTS: Duration = Duration::from_secs(30);

/// How long one try to reach the agent may take.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// A connection to the agent. Clones share it; calls may be made at the same time.
#[derive(Clone)]
pub struct Agent {
    pub(crate) client: AgentClient,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agent").finish_non_exhaustive()
    }
}

/// A process of a container: `exec` is empty for its first.
#[derive(Debug, Clone, Copy)]
pub struct ProcessName<'a> {
    /// The container.
    pub container: &'a str,
    /// The further process.
    pub exec: &'a str,
}

fn patience() -> Context {
    with_duration(PATIENCE)
}

impl Agent {
    /// One try to reach the agent behind this vsock.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer within two seconds.
    pub async fn try_connect(vsock: &Path) -> Result<(Self, HelloResponse), PodError> {
        let connection = tokio::time::timeout(FIRST_ANSWER, stream::connect(vsock, port::AGENT))
            .await
            .map_err(std::io::Error::from)
            .flatten()
            .map_err(PodError::Stream)?;
        let client = AgentClient::new(Client::new(Socket::new(connection)));
        let request = HelloRequest::new();
        let hello = client.hello(with_duration(FIRST_ANSWER), &request).await;
        let hello = hello.map_err(PodError::Agent)?;
        Ok((Self { client }, hello))
    }

    /// Makes the guest the pod's.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn start_sandbox(&self, request: &StartSandboxRequest) -> Result<(), PodError> {
        done(self.client.start_sandbox(patience(), request).await)
    }

    /// Makes a container; returns its first process's id in the guest.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn create(&self, request: &CreateContainerRequest) -> Result<u32, PodError> {
        let created = self.client.create_container(patience(), request).await;
        created.map(|made| made.pid).map_err(PodError::Agent)
    }

    /// Runs a container's program.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn start(&self, container: &str) -> Result<(), PodError> {
        let request = named(container);
        done(self.client.start_container(patience(), &request).await)
    }

    /// Takes a stopped container away.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn delete(&self, container: &str) -> Result<(), PodError> {
        let request = named(container);
        done(self.client.delete_container(patience(), &request).await)
    }

    /// Starts a further process; returns its id in the guest.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn exec(&self, request: &ExecRequest) -> Result<u32, PodError> {
        let started = self.client.exec(patience(), request).await;
        started.map(|made| made.pid).map_err(PodError::Agent)
    }

    /// Forgets an ended process.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn delete_process(&self, process: ProcessName<'_>) -> Result<(), PodError> {
        let request = process.request();
        done(self.client.delete_process(patience(), &request).await)
    }

    /// Sends a signal, to one process or to all of its container.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn signal(
        &self,
        process: ProcessName<'_>,
        signal: u32,
        all: bool,
    ) -> Result<(), PodError> {
        let request = SignalRequest {
            container: process.container.to_owned(),
            exec: process.exec.to_owned(),
            signal,
            all,
            ..SignalRequest::default()
        };
        done(self.client.signal(patience(), &request).await)
    }

    /// Gives a process's terminal another size.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn resize(
        &self,
        process: ProcessName<'_>,
        window: WindowSize,
    ) -> Result<(), PodError> {
        let request = ResizeRequest {
            container: process.container.to_owned(),
            exec: process.exec.to_owned(),
            window: Some(window).into(),
            ..ResizeRequest::default()
        };
        done(self.client.resize(patience(), &request).await)
    }

    /// Says that a process gets no more input than was sent.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn close_input(&self, process: ProcessName<'_>) -> Result<(), PodError> {
        let request = process.request();
        done(self.client.close_stdin(patience(), &request).await)
    }

    /// Stops a container's processes where they are.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn pause(&self, container: &str) -> Result<(), PodError> {
        done(self.client.pause(patience(), &named(container)).await)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn resume(&self, container: &str) -> Result<(), PodError> {
        done(self.client.resume(patience(), &named(container)).await)
    }

    /// Changes a container's limits: `linux.resources` of config.json.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn update(&self, container: &str, resources: Vec<u8>) -> Result<(), PodError> {
        let request = UpdateRequest {
            container: container.to_owned(),
            resources,
            ..UpdateRequest::default()
        };
        done(self.client.update(patience(), &request).await)
    }

    /// The ids, in the guest, of a container's processes.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn pids(&self, container: &str) -> Result<Vec<u32>, PodError> {
        let pids = self.client.pids(patience(), &named(container)).await;
        pids.map(|PidsResponse { pids, .. }| pids)
            .map_err(PodError::Agent)
    }

    /// What a container used.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn stats(&self, container: &str) -> Result<Stats, PodError> {
        let stats: Result<StatsResponse, _> =
            self.client.stats(patience(), &named(container)).await;
        stats.map_err(PodError::Agent)
    }

    /// Ends every process and switches the guest off. There may be no answer.
    pub async fn shutdown(&self, patience: Duration) {
        let _ = self
            .client
            .shutdown(with_duration(patience), &Empty::new())
            .await;
    }

    /// Waits for events after the one of this number.
    pub(crate) async fn events(&self, after: u64) -> Result<EventsResponse, PodError> {
        let request = EventsRequest {
            after,
            timeout_ms: u32::try_from(EVENTS.as_millis()).unwrap_or(u32::MAX),
            ..EventsRequest::default()
        };
        let context = with_duration(EVENTS + PATIENCE);
        let events = self.client.events(context, &request).await;
        events.map_err(PodError::Agent)
    }
}

impl ProcessName<'_> {
    fn request(self) -> ProcessRequest {
        ProcessRequest {
            container: self.container.to_owned(),
            exec: self.exec.to_owned(),
            ..ProcessRequest::default()
        }
    }
}

fn named(container: &str) -> ContainerRequest {
    ContainerRequest {
        container: container.to_owned(),
        ..ContainerRequest::default()
    }
}

fn done(answer: ttrpc::Result<Empty>) -> Result<(), PodError> {
    answer.map(drop).map_err(PodError::Agent)
}

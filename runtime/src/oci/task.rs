//! A shim's task service, of which `ringside` is a client as containerd is.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api;
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::protobuf::{Message, MessageField, well_known_types::any::Any};
use containerd_shim_protos::shim_sync::{Client, TaskClient};
use containerd_shim_protos::ttrpc::{self, Code, context};

use super::OciError;

/// How long a call may take. The first one boots a machine, and a translated guest on a busy host is slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// A process's standard streams: FIFOs of ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Stdio {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// A connection to a shim, for one container.
pub(super) struct Task {
    client: TaskClient,
    id: String,
}

impl Task {
    /// # Errors
    /// When nobody listens.
    pub(super) fn connect(socket: &Path, id: &str) -> Result<Self, OciError> {
        let address = format!("unix://{}", socket.display());
        let client = Client::connect(&address).map_err(|source| OciError::NoAnswer {
            id: id.to_owned(),
            source,
        })?;
        Ok(Self {
            client: TaskClient::new(client),
            id: id.to_owned(),
        })
    }

    fn answer<T>(&self, answer: ttrpc::Result<T>) -> Result<T, OciError> {
        answer.map_err(|error| match error {
            ttrpc::Error::RpcStatus(status) if status.code() == Code::NOT_FOUND => {
                OciError::NotThere(status.message().to_owned())
            }
            ttrpc::Error::RpcStatus(status) if status.code() != Code::DEADLINE_EXCEEDED => {
                OciError::Refused(status.message().to_owned())
            }
            source => OciError::NoAnswer {
                id: self.id.clone(),
                source,
            },
        })
    }

    pub(super) fn create(&self, bundle: &Path, stdio: Stdio) -> Result<(), OciError> {
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.display().to_string(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            ..api::CreateTaskRequest::default()
        };
        self.answer(self.client.create(patience(), &request))
            .map(drop)
    }

    pub(super) fn exec(&self, exec: &str, process: Vec<u8>, stdio: Stdio) -> Result<(), OciError> {
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            spec: any("Process", process),
            ..api::ExecProcessRequest::default()
        };
        self.answer(self.client.exec(patience(), &request))
            .map(drop)
    }

    pub(super) fn start(&self, exec: &str) -> Result<(), OciError> {
        let request = api::StartRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::StartRequest::default()
        };
        self.answer(self.client.start(patience(), &request))
            .map(drop)
    }

    pub(super) fn status(&self) -> Result<api::Status, OciError> {
        let request = api::StateRequest {
            id: self.id.clone(),
            ..api::StateRequest::default()
        };
        let state = self.answer(self.client.state(patience(), &request))?;
        Ok(state.status.enum_value_or_default())
    }

    pub(super) fn kill(&self, exec: &str, signal: u32, all: bool) -> Result<(), OciError> {
        let request = api::KillRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            signal,
            all,
            ..api::KillRequest::default()
        };
        self.answer(self.client.kill(patience(), &request))
            .map(drop)
    }

    /// Waits for a process's end, however long it takes; returns its exit code.
    pub(super) fn wait(&self, exec: &str) -> Result<u32, OciError> {
        self.wait_in(context::Context::default(), exec)
    }

    /// The same, so long at most.
    pub(super) fn wait_within(&self, exec: &str, patience: Duration) -> Result<u32, OciError> {
        self.wait_in(context::with_duration(patience), exec)
    }

    fn wait_in(&self, context: context::Context, exec: &str) -> Result<u32, OciError> {
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::WaitRequest::default()
        };
        let answer = self.client.wait(context, &request);
        self.answer(answer).map(|it| it.exit_status)
    }

    pub(super) fn delete(&self, exec: &str) -> Result<(), OciError> {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::DeleteRequest::default()
        };
        self.answer(self.client.delete(patience(), &request))
            .map(drop)
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, OciError> {
        let request = api::PidsRequest {
            id: self.id.clone(),
            ..api::PidsRequest::default()
        };
        let answer = self.answer(self.client.pids(patience(), &request))?;
        Ok(answer.processes.iter().map(|it| it.pid).collect())
    }

    pub(super) fn pause(&self) -> Result<(), OciError> {
        let request = api::PauseRequest {
            id: self.id.clone(),
            ..api::PauseRequest::default()
        };
        self.answer(self.client.pause(patience(), &request))
            .map(drop)
    }

    pub(super) fn resume(&self) -> Result<(), OciError> {
        let request = api::ResumeRequest {
            id: self.id.clone(),
            ..api::ResumeRequest::default()
        };
        self.answer(self.client.resume(patience(), &request))
            .map(drop)
    }

    /// Changes limits, by a `resources` object.
    pub(super) fn update(&self, resources: Vec<u8>) -> Result<(), OciError> {
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: any("LinuxResources", resources),
            ..api::UpdateTaskRequest::default()
        };
        self.answer(self.client.update(patience(), &request))
            .map(drop)
    }

    pub(super) fn stats(&self) -> Result<Metrics, OciError> {
        let request = api::StatsRequest {
            id: self.id.clone(),
            ..api::StatsRequest::default()
        };
        let answer = self.answer(self.client.stats(patience(), &request))?;
        let bytes = answer.stats.unwrap_or_default().value;
        Metrics::parse_from_bytes(&bytes)
            .map_err(|error| OciError::Refused(format!("the shim's statistics: {error}")))
    }

    pub(super) fn resize(&self, exec: &str, rows: u16, columns: u16) -> Result<(), OciError> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            height: rows.into(),
            width: columns.into(),
            ..api::ResizePtyRequest::default()
        };
        self.answer(self.client.resize_pty(patience(), &request))
            .map(drop)
    }

    pub(super) fn close_input(&self, exec: &str) -> Result<(), OciError> {
        let request = api::CloseIORequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            stdin: true,
            ..api::CloseIORequest::default()
        };
        self.answer(self.client.close_io(patience(), &request))
            .map(drop)
    }

    /// Ends the pod.
    pub(super) fn shutdown(&self) -> Result<(), OciError> {
        let request = api::ShutdownRequest {
            id: self.id.clone(),
            now: true,
            ..api::ShutdownRequest::default()
        };
        self.answer(self.client.shutdown(patience(), &request))
            .map(drop)
    }
}

fn patience() -> context::Context {
    context::with_duration(PATIENCE)
}

/// An object of the specification's as containerd hands it over.
fn any(kind: &str, value: Vec<u8>) -> MessageField<Any> {
    MessageField::some(Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"),
        value,
        ..Any::default()
    })
}

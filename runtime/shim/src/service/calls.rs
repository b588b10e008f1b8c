//! The calls.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim::api;
use containerd_shim::event::Event;
use containerd_shim::protos::events::task::{TaskExecAdded, TaskPaused, TaskResumed};
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim_async::Task;
use containerd_shim::protos::ttrpc::{Code, Error};
use containerd_shim::protos::types::task::ProcessInfo;
use containerd_shim::util::convert_to_any;
use containerd_shim::{TtrpcContext, TtrpcResult};
use ringside_pod::agent::ProcessName;
use ringside_protocol::agent::WindowSize;

use super::answer::{failure, no_container, status};
use super::container::Container;
use super::deadline::to_its_end;
use super::process::{Process, Stage, Stdio, output};
use super::{Service, stats};

/// signal(7)
pub(super) const SIGKILL: u32 = 9;

impl Service {
    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        let found = self.shared.containers().get(id).cloned();
        found.ok_or_else(|| no_container(id))
    }

    fn process(&self, id: &str, exec: &str) -> Result<(Arc<Container>, Arc<Process>), Error> {
        let container = self.container(id)?;
        let process = container.process(exec)?;
        Ok((container, process))
    }

    pub(super) fn publish(&self, event: impl Event) {
        self.shared.events.publish(event);
    }
}

#[async_trait]
impl Task for Service {
    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> TtrpcResult<api::StateResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let mut answer = api::StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: process.pid,
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exec_id: process.exec.clone(),
            ..api::StateResponse::default()
        };
        let stage = match process.stage() {
            Stage::Created => api::Status::CREATED,
            Stage::Running if container.is_paused() => api::Status::PAUSED,
            Stage::Running => api::Status::RUNNING,
            Stage::Stopped(exited) => {
                answer.exit_status = exited.code;
                answer.exited_at = MessageField::some(exited.at);
                api::Status::STOPPED
            }
        };
        answer.status = stage.into();
        Ok(answer)
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> TtrpcResult<api::CreateTaskResponse> {
        let pid = self.shared.create_to_the_end(request).await?;
        Ok(api::CreateTaskResponse {
            pid,
            ..api::CreateTaskResponse::default()
        })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> TtrpcResult<api::StartResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let pid = process.pid;
        self.start_to_the_end(container, process).await?;
        Ok(api::StartResponse {
            pid,
            ..api::StartResponse::default()
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> TtrpcResult<api::DeleteResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let service = self.clone();
        // A guest may need longer for it than containerd waits.
        let deleted = async move {
            match process.exec.is_empty() {
                true => service.delete_first(&container, &process).await,
                false => service.delete_further(&container, &process).await,
            }
        };
        to_its_end(deleted, |_| async {}).await
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> TtrpcResult<api::PidsResponse> {
        let container = self.container(&request.id)?;
        let pod = self.shared.pod().await.map_err(failure)?;
        let pids = pod.agent().pids(&container.id).await.map_err(failure)?;
        let info = |pid| ProcessInfo {
            pid,
            ..ProcessInfo::default()
        };
        Ok(api::PidsResponse {
            processes: pids.into_iter().map(info).collect(),
            ..api::PidsResponse::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> TtrpcResult<api::Empty> {
        let container = self.container(&request.id)?;
        let pod = self.shared.pod().await.map_err(failure)?;
        pod.agent().pause(&container.id).await.map_err(failure)?;
        container.set_paused(true);
        self.publish(TaskPaused {
            container_id: container.id.clone(),
            ..TaskPaused::default()
        });
        Ok(api::Empty::new())
    }

    async fn resume(
        &self,
        _: &TtrpcContext,
        request: api::ResumeRequest,
    ) -> TtrpcResult<api::Empty> {
        let container = self.container(&request.id)?;
        let pod = self.shared.pod().await.map_err(failure)?;
        pod.agent().resume(&container.id).await.map_err(failure)?;
        container.set_paused(false);
        self.publish(TaskResumed {
            container_id: container.id.clone(),
            ..TaskResumed::default()
        });
        Ok(api::Empty::new())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        _: api::CheckpointTaskRequest,
    ) -> TtrpcResult<api::Empty> {
        let message = "a container in a virtual machine cannot be checkpointed";
        Err(status(Code::UNIMPLEMENTED, message))
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> TtrpcResult<api::Empty> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        if process.exited().is_ok() {
            let message = format!("process {} has ended", process.name());
            return Err(status(Code::NOT_FOUND, message));
        }
        if !process.exec.is_empty() {
            process.is_not_being_started().await;
        }
        if matches!(process.stage(), Stage::Created) && !process.exec.is_empty() {
            let message = format!("process {} was not started", process.name());
            return Err(status(Code::FAILED_PRECONDITION, message));
        }
        let pod = self.shared.pod().await.map_err(failure)?;
        if request.signal == SIGKILL {
            let (container, process) = (Arc::clone(&container), Arc::clone(&process));
            self.shared.expect_end(container, process);
        }
        let name = ProcessName {
            container: &container.id,
            exec: &process.exec,
        };
        // `all` is "only valid on tasks, ignored on processes" (containerd's KillInfo): who deletes a further process says
        // it, too, and does not mean the container's others.
        let all = request.all && process.exec.is_empty();
        let sent = pod.agent().signal(name, request.signal, all);
        sent.await.map_err(failure)?;
        Ok(api::Empty::new())
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: api::ExecProcessRequest,
    ) -> TtrpcResult<api::Empty> {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() {
            return Err(status(Code::INVALID_ARGUMENT, "a process needs an exec_id"));
        }
        output(&request.stdout)?;
        output(&request.stderr)?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let spec = request.spec.value.clone();
        let (id, exec) = (&request.id, &request.exec_id);
        container.add(exec, Process::new(id, exec, container.pid, stdio, spec))?;
        self.publish(TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..TaskExecAdded::default()
        });
        Ok(api::Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> TtrpcResult<api::Empty> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let window = WindowSize {
            rows: request.height,
            columns: request.width,
            ..WindowSize::default()
        };
        process.set_window(window.clone());
        // A further process gets it when it is started.
        if matches!(process.stage(), Stage::Running) || process.exec.is_empty() {
            let pod = self.shared.pod().await.map_err(failure)?;
            let name = ProcessName {
                container: &container.id,
                exec: &process.exec,
            };
            pod.agent().resize(name, window).await.map_err(failure)?;
        }
        Ok(api::Empty::new())
    }

    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> TtrpcResult<api::Empty> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_input();
        }
        Ok(api::Empty::new())
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> TtrpcResult<api::Empty> {
        let container = self.container(&request.id)?;
        let pod = self.shared.pod().await.map_err(failure)?;
        let resources = request.resources.value.clone();
        let updated = pod.agent().update(&container.id, resources).await;
        updated.map_err(failure)?;
        Ok(api::Empty::new())
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> TtrpcResult<api::WaitResponse> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let exited = process.ended().await;
        Ok(api::WaitResponse {
            exit_status: exited.code,
            exited_at: MessageField::some(exited.at),
            ..api::WaitResponse::default()
        })
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> TtrpcResult<api::StatsResponse> {
        let container = self.container(&request.id)?;
        let pod = self.shared.pod().await.map_err(failure)?;
        let used = pod.agent().stats(&container.id).await.map_err(failure)?;
        let any: Any = convert_to_any(Box::new(stats::metrics(&used)))?;
        Ok(api::StatsResponse {
            stats: MessageField::some(any),
            ..api::StatsResponse::default()
        })
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> TtrpcResult<api::ConnectResponse> {
        let task = self.container(&request.id).map_or(0, |it| it.pid);
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..api::ConnectResponse::default()
        })
    }

    async fn shutdown(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownRequest,
    ) -> TtrpcResult<api::Empty> {
        // Each container's end asks for it; the last one's gets it. Answered when the pod is off, so that the
        // next container of that id does not find this shim; a guest may need longer than containerd waits.
        if request.now || self.shared.containers().is_empty() {
            let shared = Arc::clone(&self.shared);
            let stopped = async move {
                shared.stop().await;
                shared.exit.signal();
                Ok(())
            };
            to_its_end(stopped, |_| async {}).await?;
        }
        Ok(api::Empty::new())
    }
}

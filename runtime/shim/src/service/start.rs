//! How a container's processes begin, and are forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use containerd_shim::api::DeleteResponse;
use containerd_shim::protos::events::task::{TaskDelete, TaskExecStarted, TaskStart};
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::ttrpc::{Code, Error};
use oci_spec::runtime::ContainerState;
use ringside_pod::agent::ProcessName;
use ringside_pod::{Pod, hook};
use ringside_protocol::agent::ExecRequest;
use tokio::time::timeout;

use super::Service;
use super::answer::{failure, is_gone, status};
use super::calls::SIGKILL;
use super::container::Container;
use super::deadline::to_its_end;
use super::overdue::LATE;
use super::process::{Exited, Process, Stage};

/// How long a process that is to be forgotten may take to end when it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

impl Service {
    /// Starts a process, also where containerd's deadline passes meanwhile: the guest would start it all the same. A
    /// further process that containerd was not told of is ended again; the first one goes with its container.
    ///
    /// # Errors
    /// When it was started before, or cannot be.
    pub(super) async fn start_to_the_end(
        &self,
        container: Arc<Container>,
        process: Arc<Process>,
    ) -> Result<(), Error> {
        let late = (self.clone(), Arc::clone(&container), Arc::clone(&process));
        let service = self.clone();
        let work = async move { service.start_now(&container, &process).await };
        to_its_end(work, |started| async move {
            let (service, container, process) = late;
            if started.is_ok() && !process.exec.is_empty() {
                tracing::warn!(
                    "containerd did not wait until process {} was started",
                    process.name()
                );
                service.forget(&container, &process).await;
            }
        })
        .await
    }

    async fn start_now(&self, container: &Container, process: &Arc<Process>) -> Result<(), Error> {
        let _starting = process.starting.acquire().await;
        if !matches!(process.stage(), Stage::Created) {
            let message = format!("process {} was started before", process.name());
            return Err(status(Code::FAILED_PRECONDITION, message));
        }
        if process.exec.is_empty() {
            return self.start_first(container, process).await;
        }
        let started = self.start_further(container, process).await;
        if started.is_err() {
            // The guest may hold its ends for a while.
            process.drop_streams();
        }
        started
    }

    async fn start_first(&self, container: &Container, process: &Process) -> Result<(), Error> {
        let pod = self.shared.pod().await.map_err(failure)?;
        let started = pod.agent().start(&container.id).await;
        started.map_err(failure)?;
        process.has_started();
        let state = container.state(ContainerState::Running);
        hook::run_all("poststart", &container.hooks.poststart, &state).await;
        self.publish(TaskStart {
            container_id: container.id.clone(),
            pid: process.pid,
            ..TaskStart::default()
        });
        Ok(())
    }

    async fn start_further(
        &self,
        container: &Container,
        process: &Arc<Process>,
    ) -> Result<(), Error> {
        let pod = self.shared.pod().await.map_err(failure)?;
        let order = ExecRequest {
            container: container.id.clone(),
            exec: process.exec.clone(),
            process: process.spec.clone(),
            streams: Some(process.connect(&pod).await?).into(),
            window: process.window().into(),
            ..ExecRequest::default()
        };
        pod.agent().exec(&order).await.map_err(failure)?;
        process.has_started();
        self.publish(TaskExecStarted {
            container_id: container.id.clone(),
            exec_id: process.exec.clone(),
            pid: process.pid,
            ..TaskExecStarted::default()
        });
        Ok(())
    }

    /// Deletes a container by its first process.
    ///
    /// # Errors
    /// When that has not ended, or the container does not go, or has gone meanwhile.
    pub(super) async fn delete_first(
        &self,
        container: &Container,
        process: &Process,
    ) -> Result<DeleteResponse, Error> {
        let exited = process.exited()?;
        // Who asks again because the first deletion takes long waits for it. The permit is never taken away.
        let _deleting = container.deleting.acquire().await;
        self.container(&container.id)?;
        self.shared.delete_container(container).await?;
        Ok(self.deleted(process, Some(exited)))
    }

    /// Deletes a further process that has ended, or was not started.
    ///
    /// # Errors
    /// When it runs.
    pub(super) async fn delete_further(
        &self,
        container: &Container,
        process: &Process,
    ) -> Result<DeleteResponse, Error> {
        process.is_not_being_started().await;
        let exited = match process.stage() {
            Stage::Created => None,
            Stage::Running | Stage::Stopped(_) => Some(process.exited()?),
        };
        self.forget(container, process).await;
        Ok(self.deleted(process, exited))
    }

    fn deleted(&self, process: &Process, exited: Option<Exited>) -> DeleteResponse {
        let code = exited.as_ref().map_or(0, |exited| exited.code);
        let at = exited.map_or_else(MessageField::none, |exited| MessageField::some(exited.at));
        self.publish(TaskDelete {
            container_id: process.container.clone(),
            pid: process.pid,
            exit_status: code,
            exited_at: at.clone(),
            id: process.exec.clone(),
            ..TaskDelete::default()
        });
        DeleteResponse {
            pid: process.pid,
            exit_status: code,
            exited_at: at,
            ..DeleteResponse::default()
        }
    }

    /// Forgets a further process, and ends it where it runs: its start may have failed here and not in the guest.
    async fn forget(&self, container: &Container, process: &Process) {
        match process.stage() {
            Stage::Stopped(_) => process.wait_for_output().await,
            Stage::Created | Stage::Running => process.drop_streams(),
        }
        if let Ok(pod) = self.shared.pod().await {
            let name = ProcessName {
                container: &container.id,
                exec: &process.exec,
            };
            let forgotten = pod.agent().delete_process(name);
            if process.is_given_up.load(Ordering::Relaxed) {
                if timeout(LATE, forgotten).await.is_err() {
                    tracing::warn!(
                        "process {} may stay in the guest, which does not answer",
                        name.exec
                    );
                }
            } else if let Err(error) = forgotten.await
                // One that was never started is not known there.
                && !is_gone(&error)
            {
                tracing::debug!("{error}");
                end_and_forget(&pod, name, process).await;
            }
        }
        container.remove(&process.exec);
    }
}

async fn end_and_forget(pod: &Pod, name: ProcessName<'_>, process: &Process) {
    if let Err(error) = pod.agent().signal(name, SIGKILL, false).await {
        tracing::debug!("{error}");
    }
    // If it does not, the guest says so.
    let _ = timeout(ENDS_WITHIN, process.ended()).await;
    match pod.agent().delete_process(name).await {
        Err(error) if !is_gone(&error) => {
            tracing::warn!("process {} stays in the guest: {error}", name.exec);
        }
        _ => {}
    }
}

//! How a container's processes begin, and are forgotten.

use std::sync::Arc;

use containerd_shim::protos::events::task::{TaskExecStarted, TaskStart};
use containerd_shim::protos::ttrpc::Error;
use oci_spec::runtime::ContainerState;
use ringside_pod::agent::ProcessName;
use ringside_pod::hook;
use ringside_protocol::agent::ExecRequest;

use super::Service;
use super::answer::failure;
use super::container::Container;
use super::process::Process;

impl Service {
    pub(super) async fn start_first(
        &self,
        container: &Container,
        process: &Process,
    ) -> Result<(), Error> {
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

    pub(super) async fn start_further(
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

    pub(super) async fn forget(
        &self,
        container: &Container,
        process: &Process,
    ) -> Result<(), Error> {
        process.wait_for_output().await;
        if let Ok(pod) = self.shared.pod().await {
            let forgotten = pod.agent().delete_process(ProcessName {
                container: &container.id,
                exec: &process.exec,
            });
            // One that was never started is not known there.
            if let Err(error) = forgotten.await {
                tracing::debug!("{error}");
            }
        }
        container.remove(&process.exec);
        Ok(())
    }
}

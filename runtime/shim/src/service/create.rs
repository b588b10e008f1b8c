//! The call that makes a container, and with the first one the pod.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim::api::CreateTaskRequest;
use containerd_shim::protos::events::task::{TaskCreate, TaskIO};
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::ttrpc::{Code, Error};
use oci_spec::runtime::{ContainerState, Spec};
use ringside_config::Settings;
use ringside_pod::spec::{self, Plan};
use ringside_pod::{Pod, PodError, chain, cleanup, directory, hook};
use ringside_protocol::agent::CreateContainerRequest;
use rustix::mount::{UnmountFlags, unmount};

use super::answer::{failure, status};
use super::container::{self, Container};
use super::deadline::to_its_end;
use super::disks::{self, Disks, ROOTFS};
use super::process::{Process, Stage, Stdio, output};
use super::{PodState, Shared};
use crate::bundle;
use ringside_pod::grouping::{Membership, membership};

impl Shared {
    /// [`create`](Self::create), whose container does not stay when containerd's deadline has passed, or containerd has
    /// gone: it was not told that there is one.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn create_to_the_end(
        self: &Arc<Self>,
        request: CreateTaskRequest,
    ) -> Result<u32, Error> {
        let id = request.id.clone();
        let (shared, late) = (Arc::clone(self), Arc::clone(self));
        let work = async move { shared.create(request).await };
        to_its_end(work, |made| async move {
            late.take_away(&id, made.is_ok()).await;
        })
        .await
    }

    /// Takes away what was made too late, and the pod with its last container.
    async fn take_away(&self, id: &str, is_made: bool) {
        tracing::warn!(id, "containerd did not wait until the container was made");
        let made = self.containers().get(id).cloned().filter(|_| is_made);
        if let Some(container) = made
            && let Err(error) = self.delete_container(&container).await
        {
            tracing::warn!(id, "the container stays: {error}");
            // Without another the machine is ended, and it with it.
            let mut containers = self.containers();
            if containers.len() == 1 {
                containers.clear();
            }
        }
        if self.containers().is_empty() {
            self.stop().await;
            self.exit.signal();
        }
    }

    /// Makes a container; returns what stands for its first process on the host.
    ///
    /// # Errors
    /// When it cannot be made; then nothing of it stays, and no pod without containers.
    async fn create(self: &Arc<Self>, request: CreateTaskRequest) -> Result<u32, Error> {
        refuse(&request)?;
        if self.containers().contains_key(&request.id) {
            let message = format!("container {} exists", request.id);
            return Err(status(Code::ALREADY_EXISTS, message));
        }
        let bundle = PathBuf::from(&request.bundle);
        let host_spec = spec::read(&bundle).map_err(failure)?;
        let plan = spec::plan(host_spec.clone(), &request.id, &bundle);
        let plan = plan.map_err(PodError::from).map_err(failure)?;
        let made = self.create_planned(&request, &bundle, &host_spec, plan);
        let made = made.await;
        if made.is_err() {
            unmount_rootfs(&bundle);
            if self.containers().is_empty() {
                self.stop().await;
            }
        }
        made
    }

    async fn create_planned(
        self: &Arc<Self>,
        request: &CreateTaskRequest,
        bundle: &Path,
        host_spec: &Spec,
        plan: Plan,
    ) -> Result<u32, Error> {
        let pod = self.obtain_pod(&request.id, host_spec).await?;
        let mut disks = Disks::default();
        let planned = Planned {
            pod: &pod,
            request,
            bundle,
            host_spec,
        };
        let poststop = plan.hooks.poststop.clone();
        let made = async {
            let plan = disks.plug_in(&planned, plan).await?;
            let root = disks.root.is_none().then_some(&plan.root);
            let added = pod.share().add(&request.id, root, &plan.binds);
            added.map_err(failure)?;
            self.create_in(&planned, plan, &disks).await
        };
        let made = made.await;
        if made.is_err() {
            if let Err(error) = pod.share().remove(&request.id) {
                tracing::warn!("{}", chain(&error));
            }
            disks::unplug(&pod, &disks.serials()).await;
            // What `prestart` hooks made is theirs to take away (runtime.md, "Lifecycle").
            let mut state = container::state(&request.id, bundle, pod.pid(), host_spec);
            state.set_status(ContainerState::Stopped);
            hook::run_all("poststop", &poststop, &state).await;
        }
        made
    }

    async fn create_in(
        self: &Arc<Self>,
        planned: &Planned<'_>,
        plan: Plan,
        disks: &Disks,
    ) -> Result<u32, Error> {
        let Planned {
            pod,
            request,
            bundle,
            host_spec,
        } = planned;
        let id = &request.id;
        let pid = pod.pid();
        let state = container::state(id, bundle, pid, host_spec);
        let hooks = [
            ("prestart", &plan.hooks.prestart),
            ("createRuntime", &plan.hooks.create_runtime),
        ];
        for (kind, hooks) in hooks {
            hook::run(kind, hooks, &state).await.map_err(failure)?;
        }
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let process = Arc::new(Process::new(id, "", pid, stdio, Vec::new()));
        let streams = process.connect(pod).await?;
        let container = Container::new(
            id.clone(),
            bundle.to_path_buf(),
            pid,
            host_spec,
            (plan.hooks, disks.serials()),
            Arc::clone(&process),
        );
        let spec = serde_json::to_vec(&plan.spec);
        let order = CreateContainerRequest {
            container: id.clone(),
            spec: spec.map_err(|error| status(Code::INTERNAL, error.to_string()))?,
            storages: plan.storages,
            volumes: disks.volumes.clone(),
            streams: Some(streams).into(),
            ..CreateContainerRequest::default()
        };
        // Known before it is made: its end may come at once.
        let container = Arc::new(container);
        self.containers().insert(id.clone(), container);
        if let Err(error) = pod.agent().create(&order).await {
            self.containers().remove(id);
            return Err(failure(error));
        }
        self.events.publish(created(request, pid));
        Ok(pid)
    }

    /// The pod, started now if this is its first container.
    async fn obtain_pod(self: &Arc<Self>, id: &str, spec: &Spec) -> Result<Arc<Pod>, Error> {
        let mut state = self.pod.lock().await;
        match &*state {
            PodState::Runs(pod) => return Ok(Arc::clone(pod)),
            PodState::Ended(reason) => return Err(failure(PodError::Ended(reason.clone()))),
            PodState::Unborn => {}
        }
        if let Membership::In(sandbox) = membership(id, &bundle::annotations(spec)) {
            let message =
                format!("container {id} belongs to sandbox {sandbox}, which does not run");
            return Err(status(Code::FAILED_PRECONDITION, message));
        }
        let name = directory::pod_name(&self.namespace, id);
        // This process alone has the pod's address: what is there under its name was left by one that is dead or dying.
        let own = name.clone();
        tokio::task::spawn_blocking(move || cleanup::make_way(&directory::root(), &own))
            .await
            .map_err(|panic| failure(PodError::Ended(panic.to_string())))?
            .map_err(failure)?;
        let config = Settings::load().and_then(|host| bundle::pod_config(name, spec, &host));
        let config = config.map_err(|error| status(Code::INVALID_ARGUMENT, chain(&error)))?;
        let started = Pod::start(config).await;
        let (pod, events) = started.map_err(failure)?;
        let pod = Arc::new(pod);
        *state = PodState::Runs(Arc::clone(&pod));
        tokio::spawn(Arc::clone(self).follow(events));
        Ok(pod)
    }

    /// Takes a stopped container away, in the guest and here. What failed can be asked for again.
    ///
    /// # Errors
    /// When the guest cannot, or its mounts do not go.
    pub(super) async fn delete_container(&self, container: &Container) -> Result<(), Error> {
        for process in container.processes() {
            // What never began says nothing, and its streams end with it below.
            if !matches!(process.stage(), Stage::Created) {
                process.wait_for_output().await;
            }
        }
        if let Ok(pod) = self.pod().await {
            self.delete_in_guest(&pod, container).await?;
            pod.share().remove(&container.id).map_err(failure)?;
            disks::unplug(&pod, &container.disks).await;
        }
        unmount_rootfs(&container.bundle);
        let state = container.state(ContainerState::Stopped);
        hook::run_all("poststop", &container.hooks.poststop, &state).await;
        self.containers().remove(&container.id);
        Ok(())
    }
}

/// A container on its way.
pub(super) struct Planned<'a> {
    pub(super) pod: &'a Pod,
    pub(super) request: &'a CreateTaskRequest,
    pub(super) bundle: &'a Path,
    pub(super) host_spec: &'a Spec,
}

/// What a machine cannot do, said before anything is done.
fn refuse(request: &CreateTaskRequest) -> Result<(), Error> {
    if !request.checkpoint.is_empty() || !request.parent_checkpoint.is_empty() {
        let message = "a container in a virtual machine cannot be restored from a checkpoint";
        return Err(status(Code::UNIMPLEMENTED, message));
    }
    output(&request.stdout)?;
    output(&request.stderr)?;
    Ok(())
}

fn unmount_rootfs(bundle: &Path) {
    // Nothing is mounted there where the bundle's own directory is the root.
    while unmount(
        bundle.join(ROOTFS),
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )
    .is_ok()
    {}
}

fn created(request: &CreateTaskRequest, pid: u32) -> TaskCreate {
    TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: MessageField::some(TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..TaskIO::default()
        }),
        pid,
        ..TaskCreate::default()
    }
}

//! A shim's life: `start`, `delete`, and the process that stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use containerd_shim::asynchronous::{ExitSignal, Shim, spawn};
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, DeleteResponse, Error, Flags, StartOpts};
use ringside_pod::{chain, cleanup, directory};

use crate::publish::Events;
use crate::service::{Service, Shared};
use crate::{bundle, logging};
use ringside_pod::grouping::{Membership, membership};

/// What a process gets that SIGKILL ended.
pub(crate) const KILLED: u32 = 128 + 9;

/// File of a bundle with the address of its shim: containerd's convention.
const ADDRESS: &str = "address";

/// One invocation of the program.
pub(crate) struct RingsideShim {
    namespace: String,
    id: String,
    socket: String,
    exit: Arc<ExitSignal>,
    /// What the service has, once there is one.
    shared: OnceLock<Arc<Shared>>,
}

#[async_trait]
impl Shim for RingsideShim {
    type T = Service;

    async fn new(_runtime: &str, flags: &Flags, _config: &mut Config) -> Self {
        if flags.action.is_empty() {
            logging::start(flags.debug);
        }
        Self {
            namespace: flags.namespace.clone(),
            id: flags.id.clone(),
            socket: flags.socket.clone(),
            exit: Arc::new(ExitSignal::default()),
            shared: OnceLock::new(),
        }
    }

    async fn start_shim(&mut self, options: StartOpts) -> Result<String, Error> {
        let bundle = std::env::current_dir().map_err(failed("find the bundle"))?;
        let annotations = bundle::read_annotations(&bundle).map_err(other)?;
        let membership = membership(&options.id, &annotations);
        let grouping = membership.sandbox(&options.id).to_owned();
        // A further container finds its pod's shim by the address that follows from the sandbox's id.
        let address =
            containerd_shim::socket_address(&options.address, &options.namespace, &grouping);
        if let Membership::In(sandbox) = membership {
            let socket = address.trim_start_matches("unix://");
            if tokio::net::UnixStream::connect(socket).await.is_err() {
                return Err(Error::NotFoundError(format!(
                    "container {} belongs to sandbox {sandbox}, which does not run",
                    options.id
                )));
            }
        } else {
            spawn(options, &grouping, Vec::new()).await?;
        }
        std::fs::write(ADDRESS, &address).map_err(failed("write the shim's address"))?;
        Ok(address)
    }

    /// For a shim that is gone: its pod, too, unless the container was only one of several.
    async fn delete_shim(&mut self) -> Result<DeleteResponse, Error> {
        let bundle = std::env::current_dir().map_err(failed("find the bundle"))?;
        // Without a specification nothing was started.
        let annotations = bundle::read_annotations(&bundle).unwrap_or_default();
        let is_first = membership(&self.id, &annotations) == Membership::First;
        // containerd asks whenever a connection to a shim ends, also of one that still serves others
        // or is about to end by itself.
        if is_first && !shim_lives(&bundle) {
            let name = directory::pod_name(&self.namespace, &self.id);
            let root = directory::root();
            let removed = tokio::task::spawn_blocking(move || cleanup::remove(&root, &name)).await;
            match removed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(other(error)),
                Err(panic) => return Err(Error::Other(panic.to_string())),
            }
        }
        remove_socket(&bundle);
        Ok(DeleteResponse {
            exit_status: KILLED,
            exited_at: MessageField::some(now()),
            ..DeleteResponse::default()
        })
    }

    async fn wait(&mut self) {
        self.exit.wait().await;
        if let Some(shared) = self.shared.get() {
            shared.stop().await;
        }
    }

    async fn create_task_service(&self, publisher: RemotePublisher) -> Service {
        let events = Events::new(publisher, self.namespace.clone());
        let socket = self.socket.trim_start_matches("unix://").into();
        let exit = Arc::clone(&self.exit);
        let service = Service::new(self.namespace.clone(), events, exit, socket);
        // It is asked for once.
        let _ = self.shared.set(service.shared());
        service
    }
}

/// The socket of a bundle's shim.
fn socket(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    Some(address.trim_start_matches("unix://").into())
}

fn shim_lives(bundle: &Path) -> bool {
    socket(bundle).is_some_and(|it| std::os::unix::net::UnixStream::connect(it).is_ok())
}

/// Removes a dead shim's socket.
fn remove_socket(bundle: &Path) {
    if !shim_lives(bundle)
        && let Some(socket) = socket(bundle)
    {
        // Somebody may have been quicker.
        let _ = std::fs::remove_file(socket);
    }
}

/// The time, as events and answers have it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Timestamp::default()
    }
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |err| Error::IoError {
        context: format!("cannot {what}"),
        err,
    }
}

fn other(error: ringside_pod::PodError) -> Error {
    Error::Other(chain(&error))
}

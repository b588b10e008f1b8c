//! A pod without a guest: a test plays its agent, and a process that sleeps its hypervisor.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringside_config::Config;
pub use ringside_protocol::agent::tokio::Agent as Service;
use ringside_protocol::agent::tokio::{AgentClient, create_agent};
use tokio::process::Command;
use tokio::sync::mpsc::{Receiver, channel, unbounded_channel};
use ttrpc::asynchronous::Client;
pub use ttrpc::asynchronous::Server;

use super::Pod;
use super::disks::LaterDisks;
use crate::agent::Agent;
use crate::daemons::{Reconnects, VSOCK};
use crate::directory::PodDirectory;
use crate::parts::{Parts, Role};
use crate::plug::Orders;
use crate::share::Share;
use crate::{PodError, PodEvent, event};

/// Serves as the agent in `folder`, for as long as the server lives.
///
/// # Errors
/// When it cannot listen or be reached.
pub async fn agent(
    folder: &Path,
    service: Arc<dyn Service + Send + Sync>,
) -> Result<(Server, Agent), PodError> {
    let address = format!("unix://{}", folder.join("agent").display());
    let server = Server::new().bind(&address).map_err(PodError::Agent)?;
    let mut server = server.register_service(create_agent(service));
    server.start().await.map_err(PodError::Agent)?;
    let client = Client::connect(&address).await.map_err(PodError::Agent)?;
    let client = AgentClient::new(client);
    Ok((server, Agent { client }))
}

/// What a test holds of a pod that it plays.
pub struct Played {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What its owner is told.
    pub events: Receiver<PodEvent>,
    /// Serves as its agent.
    pub server: Server,
}

/// A pod below `root`.
///
/// # Errors
/// When it cannot be made.
pub async fn pod(root: &Path, service: Arc<dyn Service + Send + Sync>) -> Result<Played, PodError> {
    with_disks(root, service, Config::default(), None).await
}

/// A pod whose hypervisor takes these orders.
pub(crate) async fn with_disks(
    root: &Path,
    service: Arc<dyn Service + Send + Sync>,
    configuration: Config,
    orders: Option<Orders>,
) -> Result<Played, PodError> {
    let directory = PodDirectory::create(root, "played")?;
    let (sender, ends) = unbounded_channel();
    let parts = Arc::new(Parts::new(directory.clone(), sender));
    let mut machine = Command::new("sleep");
    machine.arg("3600");
    parts.start("hypervisor", machine, &[], Role::Hypervisor)?;
    let (server, agent) = agent(directory.path(), service).await?;
    let (owner, events) = channel(event::MOST_WAITING);
    let told = event::tell(agent.clone(), Arc::clone(&parts), ends, owner);
    tokio::spawn(told);
    let pod = Pod {
        share: Share::abandoned(directory.shared()),
        vsock: directory.socket(VSOCK)?,
        directory,
        parts,
        agent,
        streams: AtomicU64::new(0),
        configuration,
        reconnects: Reconnects {
            file_systems: true,
            disks: true,
            networks: true,
        },
        disks: LaterDisks::new(orders),
        patience: Duration::from_secs(1),
        network: Mutex::new(None),
    };
    Ok(Played {
        pod: Arc::new(pod),
        events,
        server,
    })
}

//! A pod's start: its parts one after another, until the agent answers.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringside_protocol::agent::NetworkConfig;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, channel, unbounded_channel};
use tokio::time::{Instant, sleep};

use super::disks::LaterDisks;
use super::{Files, Pod, PodConfig, ROOT_TAG, discard};
use crate::agent::Agent;
use crate::daemons::{Daemons, Reconnects};
use crate::directory::PodDirectory;
use crate::hypervisor::{Accelerator, FileSystem, NetworkDevice};
use crate::log::CONSOLE_LINES;
use crate::machine::{self, CONSOLE, Chosen, Devices};
use crate::network::PodNetwork;
use crate::parts::{PartEnd, Parts, Role};
use crate::share::{Share, TAG};
use crate::{PodError, PodEvent, daemons, event, log};

/// How often the agent is looked for.
const LOOK: Duration = Duration::from_millis(25);

impl Pod {
    /// Starts a pod. With [`Files::Bound`] its owner must be in a mount namespace of its own; the
    /// calling thread must live as long as the pod. When it fails, nothing stays. A start that is given
    /// up (its future dropped) kills what it started and leaves the directory.
    ///
    /// # Errors
    /// When a part cannot be started or ends, or the guest's agent does not answer.
    pub async fn start(config: PodConfig) -> Result<(Self, Receiver<PodEvent>), PodError> {
        let logs = config.configuration.log.directory.as_deref();
        let directory = PodDirectory::at(&config.root, &config.name)?;
        let directory = match &config.logs {
            Some(logs) => directory.with_logs(logs.clone()),
            None => directory.with_logs_in(logs)?,
        };
        let directory = directory.make(&config.root)?;
        let (sender, ends) = unbounded_channel();
        let parts = Arc::new(Parts::new(directory.clone(), sender));
        let mut start = Start {
            config,
            directory: directory.clone(),
            parts: Arc::clone(&parts),
            ends,
            share: None,
            network: None,
            tap: None,
        };
        match start.run().await {
            Ok((pod, events)) => {
                tokio::spawn(event::tell(
                    pod.agent.clone(),
                    start.parts,
                    start.ends,
                    events.0,
                ));
                Ok((pod, events.1))
            }
            Err(error) => {
                parts.stop().await;
                drop(start.network);
                discard(start.share.as_ref(), &directory);
                Err(error)
            }
        }
    }
}

type Events = (Sender<PodEvent>, Receiver<PodEvent>);

/// A pod on its way.
pub(super) struct Start {
    pub(super) config: PodConfig,
    directory: PodDirectory,
    parts: Arc<Parts>,
    ends: UnboundedReceiver<PartEnd>,
    pub(super) share: Option<Share>,
    pub(super) network: Option<PodNetwork>,
    /// What the agent is told of the owner's tap.
    pub(super) tap: Option<NetworkConfig>,
}

impl Start {
    async fn run(&mut self) -> Result<(Pod, Events), PodError> {
        let began = Instant::now();
        let configuration = self.config.configuration.clone();
        let image = tokio::task::spawn_blocking(move || machine::image(&configuration));
        let chosen = self.choose().await?;
        let file_system = self.start_files(&chosen)?;
        let daemons = self.daemons(&chosen);
        let (vsock, ends) = daemons.start_vsock()?;
        let disks = self.config.disks.iter();
        let disks = disks
            .map(|disk| disk.start(daemons, daemons::role(daemons.reconnects.disks)))
            .collect::<Result<Vec<_>, _>>()?;
        let image = image
            .await
            .map_err(|panic| PodError::Ended(panic.to_string()))??;
        let networks = self.start_network(&chosen)?;
        let mut sockets: Vec<&Path> = vec![&vsock.socket];
        sockets.extend(file_system.iter().map(|it| it.socket.as_path()));
        sockets.extend(disks.iter().map(|it| it.socket.as_path()));
        sockets.extend(networks.iter().filter_map(|it| it.backend.socket()));
        daemons::wait_until_served(&sockets, &self.parts, &mut self.ends).await?;
        let devices = Devices {
            file_system,
            vsock,
            disks,
            networks,
        };
        self.start_machine(&image, &chosen, devices)?;
        let agent = self.find_agent(&ends).await?;
        agent.start_sandbox(&self.sandbox()).await?;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(milliseconds, "the pod is ready");
        let pod = Pod {
            directory: self.directory.clone(),
            parts: Arc::clone(&self.parts),
            share: self
                .share
                .clone()
                .unwrap_or_else(|| Share::abandoned(self.directory.shared())),
            agent,
            vsock: ends,
            streams: AtomicU64::new(0),
            configuration: self.config.configuration.clone(),
            reconnects: self.reconnects(&chosen),
            disks: LaterDisks::new(chosen.orders()),
            patience: self.config.configuration.timeouts.stop,
            network: Mutex::new(self.network.take()),
        };
        Ok((pod, channel(event::MOST_WAITING)))
    }

    fn daemons<'a>(&'a self, chosen: &Chosen) -> Daemons<'a> {
        Daemons {
            parts: &self.parts,
            directory: &self.directory,
            config: &self.config.configuration,
            reconnects: self.reconnects(chosen),
            metrics: self.config.metrics.as_deref(),
        }
    }

    fn reconnects(&self, chosen: &Chosen) -> Reconnects {
        match self.config.restart {
            true => chosen.reconnects(),
            false => Reconnects::NONE,
        }
    }

    fn start_files(&mut self, chosen: &Chosen) -> Result<Option<FileSystem>, PodError> {
        let (shared, tag) = match &self.config.files {
            Files::Nothing => return Ok(None),
            Files::Directory(directory) => (directory.clone(), ROOT_TAG),
            Files::Bound => {
                let share = self.share.insert(Share::create(self.directory.shared())?);
                (share.directory().to_owned(), TAG)
            }
        };
        let daemons = self.daemons(chosen);
        daemons.start_virtiofsd(&shared, tag).map(Some)
    }

    fn start_network(&mut self, chosen: &Chosen) -> Result<Vec<NetworkDevice>, PodError> {
        let mut devices = Vec::new();
        if let Some(namespace) = &self.config.network_namespace {
            let mut network = PodNetwork::start(self.daemons(chosen), namespace)?;
            devices = std::mem::take(&mut network.devices);
            self.network = Some(network);
        }
        if let Some(tap) = self.config.tap.take() {
            self.tap = Some(tap.config());
            devices.push(tap.start(self.daemons(chosen))?);
        }
        Ok(devices)
    }

    /// Who runs the machine. To measure KVM takes a moment.
    async fn choose(&self) -> Result<Chosen, PodError> {
        let accelerator = tokio::task::spawn_blocking(Accelerator::detect)
            .await
            .unwrap_or(Accelerator::Tcg);
        let (config, directory) = (&self.config, &self.directory);
        machine::choose(
            config.hypervisor,
            accelerator,
            &config.configuration,
            directory,
        )
    }

    fn start_machine(
        &self,
        image: &guest_image::GuestImage,
        chosen: &Chosen,
        devices: Devices,
    ) -> Result<(), PodError> {
        let hypervisor = chosen.hypervisor();
        let accelerator = chosen.accelerator();
        let machine = machine::machine(
            &self.config,
            &self.directory,
            image,
            hypervisor,
            accelerator,
            devices,
        )?;
        let inherited: Vec<_> = machine.inherited().collect();
        let command = hypervisor.command(&machine).into();
        self.parts
            .start(hypervisor.name(), command, &inherited, Role::Hypervisor)
    }

    /// Waits until the agent answers, a part ends, or patience does.
    async fn find_agent(&mut self, vsock: &Path) -> Result<Agent, PodError> {
        let patience = self.config.configuration.timeouts.boot;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            tokio::select! {
                Some(end) = self.ends.recv() => return Err(event::cause(&self.parts, end, &mut self.ends).await),
                found = Agent::try_connect(vsock) => match found {
                    Ok((agent, hello)) => {
                        tracing::debug!(version = hello.version, kernel = hello.kernel, "the agent answers");
                        return Ok(agent);
                    }
                    Err(error) => tracing::trace!("no agent yet: {}", crate::chain(&error)),
                },
            }
            sleep(LOOK).await;
        }
        Err(PodError::NoAgent {
            seconds: patience.as_secs(),
            console: log::last_lines(&self.directory.log(CONSOLE), CONSOLE_LINES),
        })
    }
}

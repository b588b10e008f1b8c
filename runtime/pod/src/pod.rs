//! A pod's life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringside_config::Config;
use ringside_protocol::agent::{NetworkConfig, StartSandboxRequest, Storage, storage};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

use crate::agent::Agent;
use crate::daemons::{Daemons, Reconnects};
use crate::directory::PodDirectory;
use crate::disk::PodDisk;
use crate::hypervisor::{Accelerator, FileSystem, NetworkDevice};
use crate::log::CONSOLE_LINES;
use crate::machine::{self, CONSOLE, Chosen, Devices};
use crate::network::PodNetwork;
use crate::parts::{PartEnd, Parts, Role};
use crate::plug::{MOST_DISKS, Orders};
use crate::share::{GUEST_DIRECTORY, Share, TAG};
use crate::spec::GUEST_SHM;
use crate::tap::TapNetwork;
use crate::{PodError, PodEvent, daemons, event, log, stream};

/// How often the agent is looked for.
const LOOK: Duration = Duration::from_millis(25);

/// Which program runs a pod's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HypervisorChoice {
    /// Our VMM where KVM is native, else QEMU, with KVM or without.
    #[default]
    Auto,
    /// QEMU.
    Qemu,
    /// `ringside-vmm`.
    Ringside,
}

/// What a pod shall be.
#[derive(Debug, Clone)]
pub struct PodConfig {
    /// Its name, unlike any other pod's: a file name.
    pub name: String,
    /// Where pods have their directories.
    pub root: PathBuf,
    /// The guest's host name.
    pub hostname: String,
    /// Processors.
    pub cpus: u8,
    /// Memory in bytes, a multiple of a MiB.
    pub memory: u64,
    /// What runs the machine.
    pub hypervisor: HypervisorChoice,
    /// What of the host's files the guest sees.
    pub files: Files,
    /// The network namespace whose interfaces the guest gets.
    pub network_namespace: Option<PathBuf>,
    /// An interface of the guest on a tap that its owner made, beside those of the namespace.
    pub tap: Option<TapNetwork>,
    /// Disks that the machine starts with, in the guest's order.
    pub disks: Vec<PodDisk>,
    /// Mounted in the guest for the whole pod, in this order, after its shared directories: what is on
    /// the disks, for instance.
    pub storages: Vec<Storage>,
    /// Of the guest as a whole, name and value.
    pub sysctls: BTreeMap<String, String>,
    /// Where logs stay after the pod: a directory that exists. Without one they go with the pod.
    pub logs: Option<PathBuf>,
    /// Where the daemons serve their metrics, an absolute path of a directory that exists: `fs.metrics`,
    /// `SERIAL.metrics` of each disk, `net.metrics` of the tap.
    pub metrics: Option<PathBuf>,
    /// Whether a lost daemon is started again, where the hypervisor can go on with it; else its end is the
    /// pod's.
    pub restart: bool,
    /// How its parts are run. What is said above counts, whatever this says of it.
    pub configuration: Config,
}

/// What of the host's files a guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Files {
    /// A directory of the pod's own, below which [`Pod::share`] binds what containers need. The pod's
    /// owner must be in a mount namespace of its own.
    #[default]
    Bound,
    /// This directory, as a virtio-fs device with the tag [`ROOT_TAG`]; one of `storages` mounts it.
    Directory(PathBuf),
    /// None.
    Nothing,
}

/// Tag of a directory that is shared as it is.
pub const ROOT_TAG: &str = "root";

/// A machine that runs, with an agent that answers.
#[derive(Debug)]
pub struct Pod {
    directory: PodDirectory,
    parts: Arc<Parts>,
    share: Share,
    agent: Agent,
    vsock: PathBuf,
    streams: AtomicU64,
    configuration: Config,
    reconnects: Reconnects,
    /// Whom to ask for disks that come later, and the places that those have which are there.
    orders: Option<Orders>,
    places: Mutex<BTreeMap<String, usize>>,
    disks: AtomicU64,
    /// How long the guest may take to write back and switch itself off.
    patience: Duration,
    /// Held for as long as the daemons that use it.
    network: Mutex<Option<PodNetwork>>,
}

impl Pod {
    /// Starts a pod. With [`Files::Bound`] its owner must be in a mount namespace of its own; the
    /// calling thread must live as long as the pod. When it fails, nothing stays. A start that is given
    /// up (its future dropped) kills what it started and leaves the directory.
    ///
    /// # Errors
    /// When a part cannot be started or ends, or the guest's agent does not answer.
    pub async fn start(config: PodConfig) -> Result<(Self, UnboundedReceiver<PodEvent>), PodError> {
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

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The shared directory. A pod without [`Files::Bound`] has none: nothing can be added.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Its run directory.
    #[must_use]
    pub fn directory(&self) -> &PodDirectory {
        &self.directory
    }

    /// The hypervisor's process id: what stands on the host for any process of the pod.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.parts.hypervisor()
    }

    /// Opens a stream under a name that no other has.
    ///
    /// # Errors
    /// When the agent cannot be reached.
    pub async fn open_stream(&self) -> Result<(String, UnixStream), PodError> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let name = format!("s{number}");
        let stream = stream::open(&self.vsock, &name).await;
        Ok((name, stream.map_err(PodError::Stream)?))
    }

    /// How its parts are run.
    #[must_use]
    pub fn configuration(&self) -> &Config {
        &self.configuration
    }

    /// Plugs a raw image or block device in as a disk; returns the serial by which the guest finds it.
    ///
    /// # Errors
    /// When there is no room for it, its daemon cannot be started, or the hypervisor refuses.
    pub async fn add_disk(&self, image: &Path, read_only: bool) -> Result<String, PodError> {
        let orders = self.orders.as_ref().ok_or(PodError::Disks(0))?;
        let number = self.disks.fetch_add(1, Ordering::Relaxed);
        let serial = format!("d{number}");
        let place = self.take_place(&serial)?;
        let disk = PodDisk {
            serial: serial.clone(),
            image: image.to_owned(),
            read_only,
        };
        let added = async {
            let device = disk.start(self.daemons())?;
            daemons::wait_until_serves(&device.socket).await?;
            orders.add(&serial, &device, place).await
        };
        if let Err(error) = added.await {
            self.forget_disk(&serial).await;
            return Err(error);
        }
        Ok(serial)
    }

    /// Unplugs a disk of [`add_disk`](Self::add_disk), which nothing in the guest may use any more.
    ///
    /// # Errors
    /// When the guest does not let go of it; its daemon goes all the same.
    pub async fn remove_disk(&self, serial: &str) -> Result<(), PodError> {
        let removed = match &self.orders {
            Some(orders) => orders.remove(serial).await,
            None => Ok(()),
        };
        self.forget_disk(serial).await;
        removed
    }

    fn take_place(&self, serial: &str) -> Result<usize, PodError> {
        let mut places = self.places();
        let free = (0..MOST_DISKS).find(|place| !places.values().any(|it| it == place));
        let free = free.ok_or(PodError::Disks(MOST_DISKS))?;
        places.insert(serial.to_owned(), free);
        Ok(free)
    }

    async fn forget_disk(&self, serial: &str) {
        self.parts
            .dismiss(&format!("vhost-user-blk-{serial}"))
            .await;
        if let Err(error) = self.directory.remove_state(&format!("blk-{serial}")) {
            tracing::warn!("{}", crate::chain(&error));
        }
        self.places().remove(serial);
    }

    fn places(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.places
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn daemons(&self) -> Daemons<'_> {
        Daemons {
            parts: &self.parts,
            directory: &self.directory,
            config: &self.configuration,
            reconnects: self.reconnects,
            metrics: None,
        }
    }

    /// Ends everything and removes the pod's directory.
    pub async fn stop(&self) {
        self.stop_within(self.patience).await;
    }

    /// The same, with so much time for the guest to write back what it holds of its disks.
    pub async fn stop_within(&self, patience: Duration) {
        tokio::select! {
            // The answer may be lost; what counts is that the machine ends.
            () = self.agent.shutdown(patience) => {
                self.parts.wait_for_hypervisor(self.patience.min(patience)).await;
            }
            _ = self.parts.wait_for_hypervisor(patience) => {}
        }
        self.kill().await;
    }

    /// Ends everything without asking the guest, and removes the pod's directory.
    pub async fn kill(&self) {
        self.parts.stop().await;
        let network = self.network.lock().map(|mut network| network.take());
        drop(network);
        discard(Some(&self.share), &self.directory);
    }
}

fn discard(share: Option<&Share>, directory: &PodDirectory) {
    let gone = share.map_or(Ok(()), Share::destroy);
    if let Err(error) = gone.and_then(|()| directory.remove()) {
        let path = directory.path().display();
        tracing::warn!("{path} is left behind: {}", crate::chain(&error));
    }
}

type Events = (UnboundedSender<PodEvent>, UnboundedReceiver<PodEvent>);

/// A pod on its way.
struct Start {
    config: PodConfig,
    directory: PodDirectory,
    parts: Arc<Parts>,
    ends: UnboundedReceiver<PartEnd>,
    share: Option<Share>,
    network: Option<PodNetwork>,
    /// What the agent is told of the owner's tap.
    tap: Option<NetworkConfig>,
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
            .map(|disk| disk.start(daemons))
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
            orders: chosen.orders(),
            places: Mutex::default(),
            disks: AtomicU64::new(0),
            patience: self.config.configuration.timeouts.stop,
            network: Mutex::new(self.network.take()),
        };
        Ok((pod, unbounded_channel()))
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

    /// All interfaces: those of the namespace, and the owner's.
    fn network_config(&self) -> Option<NetworkConfig> {
        let Some(tap) = self.tap.clone() else {
            return self.network.as_ref().map(PodNetwork::config);
        };
        let mut all = self
            .network
            .as_ref()
            .map(PodNetwork::config)
            .unwrap_or_default();
        all.interfaces.extend(tap.interfaces);
        all.routes.extend(tap.routes);
        Some(all)
    }

    fn sandbox(&self) -> StartSandboxRequest {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut storages = vec![shared_memory()];
        if self.share.is_some() {
            storages.insert(0, shared_directory());
        }
        storages.extend(self.config.storages.iter().cloned());
        StartSandboxRequest {
            hostname: self.config.hostname.clone(),
            network: self.network_config().into(),
            storages,
            sysctls: self.config.sysctls.clone().into_iter().collect(),
            shared_pid_namespace: true,
            realtime_ns: now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(0)),
            ..StartSandboxRequest::default()
        }
    }
}

fn shared_directory() -> Storage {
    Storage {
        source: Some(storage::Source::Virtiofs(TAG.to_owned())),
        mount_point: GUEST_DIRECTORY.to_owned(),
        ..Storage::default()
    }
}

/// What the pod's containers have together as /dev/shm.
fn shared_memory() -> Storage {
    Storage {
        source: Some(storage::Source::Tmpfs(true)),
        options: ["nosuid", "nodev", "noexec", "mode=1777", "size=65536k"]
            .map(str::to_owned)
            .to_vec(),
        mount_point: GUEST_SHM.to_owned(),
        ..Storage::default()
    }
}

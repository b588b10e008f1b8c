//! One run: from a configuration to the command's exit code, leaving nothing behind.

mod console;
mod daemons;
mod directory;
pub(crate) mod event;
mod guest;
mod part;
pub(crate) mod prepare;
mod root;
mod session;
mod socket;
mod streams;
mod terminal;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::channel;

use anyhow::{Context, Result, bail};

use crate::hypervisor::{Accelerator, Hypervisor, Qemu};
use crate::network::{Forwarder, RunNetwork};
use crate::options::{ByteSize, HypervisorChoice};
use crate::programs;
use directory::RunDirectory;
use part::Parts;
pub use prepare::Interrupted;
use root::Root;
use session::Session;
use terminal::RawTerminal;

/// Pairs of queues of the network interface. One forwards more than a translated guest can send.
const QUEUE_PAIRS: u8 = 1;

/// A validated run.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the root file system comes from.
    pub root: RootSource,
    /// Data disks.
    pub disks: Vec<Disk>,
    /// Whether the guest has a network interface.
    pub network: bool,
    /// Forwarded ports.
    pub publish: Vec<crate::options::Publish>,
    /// Processors.
    pub cpus: u8,
    /// Memory.
    pub memory: ByteSize,
    /// Which program runs the machine.
    pub hypervisor: HypervisorChoice,
    /// The command's whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The command's working directory.
    pub cwd: PathBuf,
    /// Whether the command gets a terminal.
    pub terminal: bool,
    /// Where logs stay after the run.
    pub keep_logs: Option<PathBuf>,
    /// Where the daemons' metrics sockets go.
    pub metrics_directory: Option<PathBuf>,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// Where the root file system comes from. Paths are absolute.
#[derive(Debug, PartialEq, Eq)]
pub enum RootSource {
    /// This directory, through virtiofsd.
    Directory(PathBuf),
    /// This ext4 image, through vhost-user-blk.
    Image(PathBuf),
    /// An ext4 image to be made of the directory.
    ImageOf {
        /// What goes into it.
        directory: PathBuf,
        /// Where it stays; `None` removes it after the run.
        keep: Option<PathBuf>,
    },
}

/// A data disk.
#[derive(Debug, PartialEq, Eq)]
pub struct Disk {
    /// Absolute path of the raw image or block device.
    pub image: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// Runs the command in a machine of its own and returns its exit code.
///
/// # Errors
/// When a part cannot be started or ends before the command does, naming the part and the end of
/// its log; [`Interrupted`] when a signal came before the first part was started.
pub fn run(config: Config) -> Result<u8> {
    let (sender, events) = channel();
    event::watch_signals(sender.clone())?;
    let terminal = config.terminal.then(RawTerminal::check).transpose()?;
    let directory = RunDirectory::create(config.keep_logs.as_deref())?;
    let image = prepare::unless_interrupted(&events, guest::image)??;
    let root = Root::obtain(&config.root, &events)?;
    // Parts end before the directory they use is removed: later values drop first.
    let mut parts = Parts::new(sender.clone(), directory.logs().to_owned());
    let network = config
        .network
        .then(|| RunNetwork::create(QUEUE_PAIRS))
        .transpose()?;
    let mut devices = daemons::Devices::default();
    let launcher = daemons::Launcher::new(&config, &directory)?;
    launcher.start_root(&mut parts, &mut devices, root)?;
    launcher.start_disks(&mut parts, &mut devices)?;
    let forwarder = match network {
        Some(network) => {
            let RunNetwork {
                namespace,
                tap_queues,
            } = network;
            launcher.start_network(&mut parts, &mut devices, tap_queues)?;
            Some(Forwarder::start(&config.publish, namespace)?)
        }
        None => None,
    };
    for published in forwarder.iter().flat_map(|forwarder| &forwarder.published) {
        // Nobody may read it any more; that is no reason to end.
        let _ = writeln!(
            std::io::stderr(),
            "ringside: 127.0.0.1:{} -> guest port {}",
            published.host,
            published.guest
        );
    }
    if let Err(failure) = socket::wait_until_served(&devices.sockets, &events) {
        return settle(failure, &parts, &directory);
    }
    let (streams, ports) = streams::Streams::pairs()?;
    let size = terminal.as_ref().map(RawTerminal::size);
    let accelerator = Accelerator::detect();
    let machine = guest::Builder {
        config: &config,
        directory: &directory,
        image,
        accelerator,
    }
    .machine(devices, ports, size)?;
    let qemu = match config.hypervisor {
        HypervisorChoice::Auto | HypervisorChoice::Qemu => Qemu {
            program: programs::QEMU.find()?,
            accelerator,
            api_socket: None,
        },
    };
    let inherited: Vec<_> = machine.inherited().collect();
    parts.start(
        qemu.name(),
        qemu.command(&machine),
        &inherited,
        part::Role::Hypervisor,
    )?;
    drop(inherited);
    drop(machine);
    let raw = terminal.map(RawTerminal::enter).transpose()?;
    let streams = streams.start(sender)?;
    let session = Session {
        events,
        streams,
        terminal: config.terminal,
    };
    let ended = session.serve();
    // What is said from here on is for a terminal as it was.
    drop(raw);
    match ended {
        Ok(code) => {
            parts.wait_for_hypervisor();
            Ok(code)
        }
        Err(failure) => settle(failure, &parts, &directory),
    }
}

/// Turns the reason why a run ended early into an exit code or a message that names the part.
fn settle(failure: event::Failure, parts: &Parts, directory: &RunDirectory) -> Result<u8> {
    match failure {
        event::Failure::Interrupted(signal) => Ok(Interrupted(signal).exit_code()),
        event::Failure::Guest { message, code: 125 } => {
            bail!("the guest failed: {message}{}", directory.console_tail())
        }
        event::Failure::Guest { message, code } => {
            let _ = writeln!(std::io::stderr(), "ringside: {message}");
            Ok(code)
        }
        event::Failure::Ended(first) => Err(parts.obituary(first, directory)),
        event::Failure::NotServed(path) => {
            bail!(
                "nothing serves {} after {} seconds",
                path.display(),
                socket::PATIENCE.as_secs()
            )
        }
        event::Failure::NotBooted => bail!(
            "the guest did not start its command in {} seconds{}",
            session::BOOT_PATIENCE.as_secs(),
            directory.console_tail()
        ),
        event::Failure::Control(error) => {
            Err(error).context("the guest's agent sent something that is no message")
        }
    }
}

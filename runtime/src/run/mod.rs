//! One run: from a configuration to the command's exit code, leaving nothing behind.

mod command;
mod directory;
mod machine;
pub(crate) mod ordinary_user;
pub(crate) mod prepare;
mod root;
mod session;
pub(crate) mod signals;
mod streams;
mod terminal;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringside_pod::{Pod, PodConfig};

use crate::network::{Forwarder, RunNetwork};
use crate::options::{ByteSize, HypervisorChoice};
use command::Command;
use directory::RunDirectory;
pub use prepare::Interrupted;
use root::Root;
use session::{Failure, Session};
use signals::Signals;
use terminal::RawTerminal;

/// Pairs of queues of the network interface. One forwards more than a translated guest can send.
const QUEUE_PAIRS: u8 = 1;

/// How long the guest may take to write back what it holds of its disks.
const WRITE_BACK: Duration = Duration::from_secs(100);

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
    let mut signals = signals::watch()?;
    let terminal = config.terminal.then(RawTerminal::check).transpose()?;
    let command = Command::of(&config)?;
    let directory = RunDirectory::create(config.keep_logs.as_deref())?;
    let root = Root::obtain(&config.root, &mut signals)?;
    let network = config.network.then(|| RunNetwork::create(QUEUE_PAIRS));
    let (tap, _forwarder) = match network.transpose()? {
        Some(network) => {
            let tap = machine::tap(network.tap_queues);
            let forwarder = Forwarder::start(&config.publish, network.namespace)?;
            announce(&forwarder);
            (Some(tap), Some(forwarder))
        }
        None => (None, None),
    };
    let pod = machine::pod_config(&config, &directory, &root, tap)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start waiting for events")?;
    // Parts live as long as the thread that starts them, which is this one.
    let ended = runtime.block_on(live(pod, root, &mut signals, &command, terminal));
    // Work that a signal interrupted, as a download, ends with this process.
    runtime.shutdown_background();
    settle(ended)
}

fn announce(forwarder: &Forwarder) {
    for published in &forwarder.published {
        // Nobody may read it any more; that is no reason to end.
        let _ = writeln!(
            std::io::stderr(),
            "ringside: 127.0.0.1:{} -> guest port {}",
            published.host,
            published.guest
        );
    }
}

/// The machine's whole life.
async fn live(
    config: PodConfig,
    root: Root,
    signals: &mut Signals,
    command: &Command,
    terminal: Option<RawTerminal>,
) -> Result<u8, Failure> {
    let (pod, events) = tokio::select! {
        started = Pod::start(config) => started?,
        signal = signals::next_ending(signals) => return Err(Failure::Interrupted(signal)),
    };
    // The daemon has a temporary image open; its name is no longer needed.
    drop(root);
    let session = Session {
        pod: &pod,
        events,
        signals,
    };
    let ended = session.serve(command, terminal).await;
    if ended.is_ok() {
        tokio::select! {
            () = pod.stop_within(WRITE_BACK) => {}
            signal = signals::next_ending(signals) => {
                pod.kill().await;
                return Err(Failure::Interrupted(signal));
            }
        }
    } else {
        pod.kill().await;
    }
    ended
}

/// Turns the reason why a run ended early into an exit code or a message that names the part.
fn settle(ended: Result<u8, Failure>) -> Result<u8> {
    match ended {
        Ok(code) => Ok(code),
        Err(Failure::Interrupted(signal)) => Ok(Interrupted(signal).exit_code()),
        Err(Failure::NotRun { message, code }) => {
            let _ = writeln!(std::io::stderr(), "ringside: {message}");
            Ok(code)
        }
        Err(Failure::Pod(error)) => Err(error.into()),
        Err(Failure::Ended(reason)) => bail!("the command did not end, its machine did: {reason}"),
        Err(Failure::Terminal(error)) => Err(error),
    }
}

//! The daemons of a pod and their command lines.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringside_config::Config;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::PodError;
use crate::directory::{PodDirectory, checked_socket};
use crate::hypervisor::{FileSystem, VsockDevice};
use crate::parts::{PartEnd, Parts, Role};
use crate::proc::is_served;
use crate::programs::{self, Program};
use crate::share::TAG;

/// How long a daemon may take to listen: it may have to open a slow disk.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// The guest's number on its vsock: each machine has a device of its own, so all may have the same.
const GUEST_CID: u64 = 3;

/// Name, in a pod's directory, of the socket where the host's ends of the guest's connections are.
pub const VSOCK: &str = "vsock";

/// Which devices the hypervisor connects again when their daemon was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reconnects {
    pub(crate) file_systems: bool,
    pub(crate) disks: bool,
    pub(crate) networks: bool,
}

impl Reconnects {
    pub(crate) const NONE: Self = Self {
        file_systems: false,
        disks: false,
        networks: false,
    };
}

/// Starts a pod's daemons.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Daemons<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) directory: &'a PodDirectory,
    pub(crate) config: &'a Config,
    pub(crate) reconnects: Reconnects,
    /// Where the pod's owner wants the metrics, if not in the pod's directory.
    pub(crate) metrics: Option<&'a Path>,
}

impl Daemons<'_> {
    /// Starts virtiofsd on a directory.
    pub(crate) fn start_virtiofsd(&self, shared: &Path, tag: &str) -> Result<FileSystem, PodError> {
        let (programs, virtiofs) = (&self.config.programs, &self.config.virtiofs);
        let program = programs.virtiofsd.as_deref();
        let (mut command, socket) =
            self.daemon(programs::VIRTIOFSD, program, "fs", ("virtiofsd", tag))?;
        command.arg("--shared-dir").arg(shared);
        command.args(["--tag", tag]);
        if tag == TAG {
            // What is mounted there are different file systems, as the guest is to know.
            command.arg("--announce-submounts");
        }
        command.args(["--cache", virtiofs.cache.as_str()]);
        if virtiofs.writeback {
            command.arg("--writeback");
        }
        let queues = virtiofs.queues.get();
        command.args(["--queues", &queues.to_string()]);
        if self.reconnects.file_systems {
            command.arg("--state-dir").arg(self.directory.state("fs")?);
        }
        command.args(&virtiofs.options);
        let role = role(self.reconnects.file_systems);
        self.parts.start("virtiofsd", command, &[], role)?;
        Ok(FileSystem {
            socket,
            tag: tag.to_owned(),
            queues,
        })
    }

    /// Starts the vsock device. Connections to the guest begin at the returned path.
    pub(crate) fn start_vsock(&self) -> Result<(VsockDevice, PathBuf), PodError> {
        let program = self.config.programs.vhost_user_vsock.as_deref();
        let (mut command, socket) = self.daemon(
            programs::VSOCK,
            program,
            "vsock",
            ("vhost-user-vsock", "vsock"),
        )?;
        let ends = self.directory.socket(VSOCK)?;
        command.arg("--uds-path").arg(&ends);
        command.arg("--cid").arg(GUEST_CID.to_string());
        // Not started again: the connections that it had are lost, and bytes of streams with them.
        self.parts
            .start("vhost-user-vsock", command, &[], Role::Daemon)?;
        let device = VsockDevice {
            socket,
            cid: GUEST_CID,
        };
        Ok((device, ends))
    }

    /// Starts the network device of the tap of this name in a namespace.
    pub(crate) fn start_network(
        &self,
        index: usize,
        namespace: &Path,
        tap: &str,
        mac: &str,
        mtu: u32,
    ) -> Result<PathBuf, PodError> {
        let program = self.config.programs.vhost_user_net.as_deref();
        let (name, part) = (format!("net{index}"), format!("vhost-user-net{index}"));
        let (mut command, socket) =
            self.daemon(programs::NETWORK, program, &name, (&part, &name))?;
        command.args(["--tap", tap]).arg("--netns").arg(namespace);
        command.args(["--mac", mac, "--mtu", &mtu.to_string()]);
        let pairs = self.config.network.queue_pairs.get();
        command.args(["--queue-pairs", &pairs.to_string()]);
        if self.reconnects.networks {
            // Made anew for a network that comes a second time.
            self.directory.remove_state(&name)?;
            command.arg("--state-dir").arg(self.directory.state(&name)?);
        }
        let role = role(self.reconnects.networks);
        self.parts.start(&part, command, &[], role)?;
        Ok(socket)
    }

    /// A daemon's command with what all have, and the socket `NAME.sock` that it will serve. Metrics are
    /// under the part's name in the pod's directory, or under the device's where an owner asked for them.
    pub(crate) fn daemon(
        &self,
        program: Program,
        configured: Option<&Path>,
        name: &str,
        (part, device): (&str, &str),
    ) -> Result<(Command, PathBuf), PodError> {
        let socket = self.directory.socket(&format!("{name}.sock"))?;
        let mut command = Command::new(program.find_or(configured)?);
        command.arg("--socket-path").arg(&socket);
        command.args(confinement(self.config));
        command.args([OsStr::new("--log-level"), self.config.log.level.as_ref()]);
        let metrics = match self.metrics {
            Some(folder) => Some(checked_socket(folder.join(format!("{device}.metrics")))?),
            None if self.config.metrics => Some(self.directory.socket(&format!("{part}.metrics"))?),
            None => None,
        };
        if let Some(metrics) = metrics {
            command.arg("--metrics-socket").arg(metrics);
        }
        Ok((command, socket))
    }
}

/// Options of VMM and daemons that say how closed in they are.
pub(crate) fn confinement(config: &Config) -> &'static [&'static str] {
    match config.sandbox {
        true => &[],
        false => &["--sandbox", "none", "--seccomp", "none"],
    }
}

/// What a daemon is whose device is connected again, or not.
pub(crate) fn role(reconnects: bool) -> Role {
    if reconnects {
        Role::Restarted
    } else {
        Role::Daemon
    }
}

/// Returns when this daemon's socket is listened on.
pub(crate) async fn wait_until_serves(socket: &Path) -> Result<(), PodError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_served(socket) {
        if tokio::time::Instant::now() > deadline {
            return Err(PodError::NotServed {
                path: socket.to_owned(),
                seconds: PATIENCE.as_secs(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Returns when every socket is listened on.
pub(crate) async fn wait_until_served(
    sockets: &[&Path],
    parts: &Parts,
    ends: &mut UnboundedReceiver<PartEnd>,
) -> Result<(), PodError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Ok(end) = ends.try_recv() {
            return Err(parts.obituary(&end));
        }
        let Some(missing) = sockets.iter().find(|socket| !is_served(socket)) else {
            return Ok(());
        };
        if tokio::time::Instant::now() > deadline {
            return Err(PodError::NotServed {
                path: missing.to_path_buf(),
                seconds: PATIENCE.as_secs(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

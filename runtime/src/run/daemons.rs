//! The daemons of a run and their command lines.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ringside_protocol as protocol;
use tempfile::TempPath;

use super::directory::{RunDirectory, checked_socket_path};
use super::part::{Parts, Role};
use super::root::Root;
use super::{Config, QUEUE_PAIRS};
use crate::hypervisor::{DiskDevice, FileSystem, NetworkBackend, NetworkDevice};
use crate::network::{GUEST_MAC, MTU};
use crate::programs::{self, Program};

/// Tag of the virtiofs root, serial of the block root.
const ROOT: &str = "root";

/// Queues of a disk: one for each processor up to this many.
const MOST_QUEUES: u8 = 4;

/// With the value `qemu` this variable lets QEMU serve the tap itself, to compare with the daemon.
const NETWORK_BY: &str = "RINGSIDE_NET_BY";

/// What the daemons serve, for the hypervisor and for the guest.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) file_systems: Vec<FileSystem>,
    pub(super) disks: Vec<DiskDevice>,
    pub(super) network: Option<NetworkDevice>,
    /// All sockets that must be served before the machine starts.
    pub(super) sockets: Vec<PathBuf>,
    pub(super) root: Option<protocol::Root>,
    pub(super) data_disks: Vec<protocol::Block>,
    /// An image made for this run only. Its name goes once the daemons serve and the machine is
    /// put together: the daemon has it open, and nothing can be left behind.
    temporary_image: Option<TempPath>,
}

/// Starts daemons.
pub(super) struct Launcher<'a> {
    config: &'a Config,
    directory: &'a RunDirectory,
    metrics: Option<PathBuf>,
}

impl<'a> Launcher<'a> {
    pub(super) fn new(config: &'a Config, directory: &'a RunDirectory) -> Result<Self> {
        let metrics = config
            .metrics_directory
            .as_deref()
            .map(prepare_metrics)
            .transpose()?;
        Ok(Self {
            config,
            directory,
            metrics,
        })
    }

    /// Starts the daemon of the root file system.
    pub(super) fn start_root(
        &self,
        parts: &mut Parts,
        devices: &mut Devices,
        root: Root,
    ) -> Result<()> {
        match root {
            Root::Directory(directory) => self.start_virtiofsd(parts, devices, &directory),
            Root::Image(image) => self.start_root_disk(parts, devices, &image),
            Root::Temporary(image) => {
                self.start_root_disk(parts, devices, &image)?;
                devices.temporary_image = Some(image);
                Ok(())
            }
        }
    }

    pub(super) fn start_disks(&self, parts: &mut Parts, devices: &mut Devices) -> Result<()> {
        for (index, disk) in self.config.disks.iter().enumerate() {
            let serial = format!("disk{index}");
            self.start_disk(parts, devices, &serial, &disk.image, disk.read_only)?;
            devices.data_disks.push(protocol::Block {
                serial,
                read_only: disk.read_only,
            });
        }
        Ok(())
    }

    pub(super) fn start_network(
        &self,
        parts: &mut Parts,
        devices: &mut Devices,
        tap_queues: Vec<OwnedFd>,
    ) -> Result<()> {
        let backend = if std::env::var_os(NETWORK_BY).is_some_and(|who| who == "qemu") {
            NetworkBackend::Tap(tap_queues)
        } else {
            let (mut command, socket) = self.daemon(programs::NETWORK, "net")?;
            let numbers: Vec<_> = tap_queues
                .iter()
                .map(|queue| queue.as_raw_fd().to_string())
                .collect();
            command.arg("--tap-fd").arg(numbers.join(","));
            command.arg("--queue-pairs").arg(QUEUE_PAIRS.to_string());
            command
                .arg("--mac")
                .arg(GUEST_MAC)
                .arg("--mtu")
                .arg(MTU.to_string());
            let inherited: Vec<_> = tap_queues.iter().map(AsFd::as_fd).collect();
            parts.start("vhost-user-net", command, &inherited, Role::Daemon)?;
            devices.sockets.push(socket.clone());
            NetworkBackend::VhostUser(socket)
        };
        let mac = GUEST_MAC.to_owned();
        devices.network = Some(NetworkDevice {
            backend,
            mac,
            queue_pairs: QUEUE_PAIRS,
        });
        Ok(())
    }

    fn start_virtiofsd(
        &self,
        parts: &mut Parts,
        devices: &mut Devices,
        shared: &Path,
    ) -> Result<()> {
        let (mut command, socket) = self.daemon(programs::VIRTIOFSD, ROOT)?;
        command
            .arg("--shared-dir")
            .arg(shared)
            .arg("--tag")
            .arg(ROOT);
        parts.start("virtiofsd", command, &[], Role::Daemon)?;
        devices.sockets.push(socket.clone());
        devices.file_systems.push(FileSystem {
            socket,
            tag: ROOT.to_owned(),
            queues: 1,
        });
        devices.root = Some(protocol::Root::Virtiofs {
            tag: ROOT.to_owned(),
            overlay: false,
        });
        Ok(())
    }

    fn start_root_disk(
        &self,
        parts: &mut Parts,
        devices: &mut Devices,
        image: &Path,
    ) -> Result<()> {
        self.start_disk(parts, devices, ROOT, image, false)?;
        let block = protocol::Block {
            serial: ROOT.to_owned(),
            read_only: false,
        };
        devices.root = Some(protocol::Root::Block(block));
        Ok(())
    }

    fn start_disk(
        &self,
        parts: &mut Parts,
        devices: &mut Devices,
        serial: &str,
        image: &Path,
        read_only: bool,
    ) -> Result<()> {
        let queues = self.config.cpus.min(MOST_QUEUES);
        let (mut command, socket) = self.daemon(programs::BLOCK, serial)?;
        command
            .arg("--blk-file")
            .arg(image)
            .arg("--serial")
            .arg(serial);
        command.arg("--queues").arg(queues.to_string());
        if read_only {
            command.arg("--read-only");
        }
        parts.start(
            &format!("vhost-user-blk-{serial}"),
            command,
            &[],
            Role::Daemon,
        )?;
        devices.sockets.push(socket.clone());
        devices.disks.push(DiskDevice { socket, queues });
        Ok(())
    }

    /// A daemon's command up to what only it needs, and its socket.
    fn daemon(&self, program: Program, device: &str) -> Result<(Command, PathBuf)> {
        let socket = self.directory.socket(device)?;
        let mut command = Command::new(program.find()?);
        command.arg("--socket-path").arg(&socket);
        if let Some(directory) = &self.metrics {
            let path = checked_socket_path(directory.join(format!("{device}.metrics")))?;
            command.arg("--metrics-socket").arg(path);
        }
        Ok((command, socket))
    }
}

fn prepare_metrics(directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("--metrics-dir {}: cannot make it", directory.display()))?;
    Ok(std::path::absolute(directory)?)
}

//! Starts a virtual machine: what it needs, and the program that gives it.

mod accelerator;
mod qemu;
mod vmm;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

pub use accelerator::Accelerator;
pub use qemu::{Qemu, ROOT_PORTS};
pub use vmm::RingsideVmm;

/// Everything a hypervisor needs to know about a machine. Devices are sockets: whoever serves
/// them stands on the other side.
#[derive(Debug)]
pub struct Machine {
    /// Name for process lists.
    pub name: String,
    /// Processors.
    pub cpus: u8,
    /// Memory in bytes. It is shared with the daemons.
    pub memory: u64,
    /// Whether it comes from the host's reserved 2 MiB pages.
    pub huge_pages: bool,
    /// The ELF kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Takes what the kernel's console prints: a pipe or a socket, see [`Hypervisor::opens_console`]. It is
    /// inherited under its number here.
    pub console: OwnedFd,
    /// vhost-user file systems.
    pub file_systems: Vec<FileSystem>,
    /// vhost-user disks, in the guest's order.
    pub disks: Vec<DiskDevice>,
    /// Network interfaces, in the guest's order.
    pub networks: Vec<NetworkDevice>,
    /// The vhost-user vsock device.
    pub vsock: Option<VsockDevice>,
}

/// A vhost-user file system.
#[derive(Debug)]
pub struct FileSystem {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The tag the guest mounts.
    pub tag: String,
    /// Its request queues.
    pub queues: u16,
}

/// A vhost-user disk.
#[derive(Debug)]
pub struct DiskDevice {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Its queues.
    pub queues: u8,
}

/// Sockets between host and guest.
#[derive(Debug)]
pub struct VsockDevice {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The guest's number (virtio 1.2, section 5.10.4).
    pub cid: u64,
}

/// A network interface.
#[derive(Debug)]
pub struct NetworkDevice {
    /// Who serves it.
    pub backend: NetworkBackend,
    /// The guest's hardware address.
    pub mac: String,
    /// Pairs of queues.
    pub queue_pairs: u8,
}

/// Who serves the network interface.
#[derive(Debug)]
pub enum NetworkBackend {
    /// The vhost-user daemon on this socket.
    VhostUser(PathBuf),
    /// The hypervisor itself, on inherited tap queues: for comparison with the daemon.
    Tap(Vec<OwnedFd>),
}

impl NetworkBackend {
    /// The daemon's socket, if there is a daemon.
    #[must_use]
    pub fn socket(&self) -> Option<&std::path::Path> {
        match self {
            Self::VhostUser(socket) => Some(socket),
            Self::Tap(_) => None,
        }
    }
}

impl Machine {
    /// The descriptors the hypervisor inherits.
    pub fn inherited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        let taps = self.networks.iter().flat_map(|network| {
            let queues: &[OwnedFd] = match &network.backend {
                NetworkBackend::Tap(queues) => queues,
                NetworkBackend::VhostUser(_) => &[],
            };
            queues
        });
        taps.chain([&self.console]).map(AsFd::as_fd)
    }
}

/// A program that runs machines.
pub trait Hypervisor {
    /// Its name in messages and of its log.
    fn name(&self) -> &'static str;

    /// Whether it opens the console by its descriptor's path, as only a pipe allows, instead of using the
    /// descriptor, which QEMU takes for a socket.
    fn opens_console(&self) -> bool {
        false
    }

    /// The command that runs `machine` until the guest switches itself off.
    fn command(&self, machine: &Machine) -> Command;
}

//! A Linux guest under QEMU, emulated: it runs on every host and is slow.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_image::Flavour;

use super::initramfs::{self, ExtraFile};
use super::programs;
use super::running::Port;
use super::{Error, Guest, Outcome};
use crate::need;
use crate::process::{Daemon, DaemonBuilder};
use crate::scratch::Scratch;

const LIMIT: Duration = Duration::from_secs(60);

/// A vhost-user socket and how QEMU attaches to it.
#[derive(Clone, Debug)]
pub struct VhostUser {
    socket: PathBuf,
    queues: u16,
    queue_size: Option<u16>,
    reconnect: bool,
}

impl VhostUser {
    /// One queue (or queue pair) of QEMU's usual size, no reconnect.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            queues: 1,
            queue_size: None,
            reconnect: false,
        }
    }

    /// The number of request queues, or of queue pairs for a network device.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// Entries of each queue of a disk or file system, instead of QEMU's 128.
    #[must_use]
    pub fn queue_size(mut self, entries: u16) -> Self {
        self.queue_size = Some(entries);
        self
    }

    /// Lets QEMU connect again one second after the daemon went away.
    #[must_use]
    pub fn reconnect(mut self) -> Self {
        self.reconnect = true;
        self
    }
}

impl<P: AsRef<Path>> From<P> for VhostUser {
    fn from(socket: P) -> Self {
        Self::new(socket.as_ref())
    }
}

#[derive(Clone, Debug)]
enum Device {
    Blk,
    Fs { tag: String },
    Net { mac: String },
    Vsock,
}

/// A guest to be started: Debian's cloud kernel, busybox and a script of the test's.
///
/// The script runs under busybox's shell with all its applets. Block devices are `/dev/vda`,
/// `/dev/vdb`, ... in the order given; file systems are mounted by `mount -t virtiofs TAG DIR`;
/// network devices are `eth0`, `eth1`, ...
#[derive(Clone, Debug)]
pub struct QemuGuest {
    script: String,
    memory_mib: u32,
    cpus: u16,
    devices: Vec<(VhostUser, Device)>,
    modules: Vec<String>,
    files: Vec<ExtraFile>,
    programs: Vec<String>,
    options: Vec<String>,
    flavour: Flavour,
    limit: Duration,
}

impl QemuGuest {
    /// A guest of 256 MiB and one CPU that runs `script`.
    #[must_use]
    pub fn new(script: impl Into<String>) -> Self {
        Self {
            script: script.into(),
            memory_mib: 256,
            cpus: 1,
            devices: Vec::new(),
            modules: Vec::new(),
            files: Vec::new(),
            programs: Vec::new(),
            options: Vec::new(),
            flavour: Flavour::Cloud,
            limit: LIMIT,
        }
    }

    /// The guest's memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// The number of CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u16) -> Self {
        self.cpus = cpus;
        self
    }

    /// Attaches a block daemon.
    #[must_use]
    pub fn blk(mut self, socket: impl Into<VhostUser>) -> Self {
        self.devices.push((socket.into(), Device::Blk));
        self
    }

    /// Attaches a file system daemon under a tag.
    #[must_use]
    pub fn fs(mut self, socket: impl Into<VhostUser>, tag: &str) -> Self {
        self.devices.push((
            socket.into(),
            Device::Fs {
                tag: tag.to_owned(),
            },
        ));
        self
    }

    /// Attaches a network daemon. The MAC is 52:54:00:00:00:01 for the first, and so on.
    #[must_use]
    pub fn net(mut self, socket: impl Into<VhostUser>) -> Self {
        let mac = format!("52:54:00:00:00:{:02x}", self.devices.len() + 1);
        self.devices.push((socket.into(), Device::Net { mac }));
        self
    }

    /// Attaches a socket daemon, which knows the guest's context id.
    #[must_use]
    pub fn vsock(mut self, socket: impl Into<VhostUser>) -> Self {
        self.devices.push((socket.into(), Device::Vsock));
        self
    }

    /// Loads a further module of the kernel, with what it depends on.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Puts a file into the guest; a program must be statically linked.
    #[must_use]
    pub fn file(mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) -> Self {
        let file = ExtraFile {
            path: path.to_owned(),
            permissions,
            content: content.into(),
        };
        self.files.push(file);
        self
    }

    /// Puts a program of the host's into the guest's `/bin`, with its shared libraries: a name, or a path.
    #[must_use]
    pub fn program(mut self, name: &str) -> Self {
        self.programs.push(name.to_owned());
        self
    }

    /// Boots another of Debian's kernels (the cloud kernel).
    #[must_use]
    pub fn kernel(mut self, flavour: Flavour) -> Self {
        self.flavour = flavour;
        self
    }

    /// Adds arguments to QEMU's command line.
    #[must_use]
    pub fn options<S: Into<String>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Changes the time limit from the guest's start to its script's end (60 s).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Boots the guest and waits for its script.
    ///
    /// # Errors
    /// When the guest cannot be started, dies, or is not done within its time limit.
    pub fn run(self) -> Result<Outcome, Error> {
        self.start()?.wait()
    }

    /// Boots the guest and lets it run.
    ///
    /// # Errors
    /// When the guest cannot be started.
    pub fn start(self) -> Result<Guest, Error> {
        let qemu = need::program("qemu-system-x86_64")?;
        let scratch = Scratch::new("qemu").map_err(Error::io("make a directory for the guest"))?;
        let mut files = self.files.clone();
        for program in &self.programs {
            files.extend(programs::with_libraries(program)?);
        }
        // Programs share libraries.
        let mut seen = HashSet::new();
        files.retain(|file| seen.insert(file.path.clone()));
        let boot = initramfs::build(self.flavour, &self.script, &self.modules, &files, &scratch)?;
        let port = Port::new()?;
        let mut command = self.machine(Daemon::builder(qemu), port.number());
        command = command
            .arg("-kernel")
            .arg(&boot.vmlinux)
            .arg("-initrd")
            .arg(&boot.initramfs);
        for (id, (socket, device)) in self.devices.iter().enumerate() {
            command = command.args(device_arguments(id, socket, device));
        }
        let (near, far) = port.split();
        let hypervisor = command.args(&self.options).keep(far).spawn()?;
        Guest::watch("QEMU guest", hypervisor, near, self.limit, scratch)
    }

    fn machine(&self, command: DaemonBuilder, port: i32) -> DaemonBuilder {
        let mib = self.memory_mib;
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,-la57"])
            .args(["-M", "q35,memory-backend=mem", "-m", &format!("{mib}M")])
            .args(["-smp", &self.cpus.to_string()])
            .args([
                "-object",
                &format!("memory-backend-memfd,id=mem,size={mib}M,share=on"),
            ])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-serial", "stdio", "-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=port,fd={port}")])
            .args(["-device", "virtserialport,chardev=port"])
            .args(["-append", KERNEL_OPTIONS])
    }
}

/// With `panic=-1` and `-no-reboot` a panic ends QEMU; `net.ifnames` keeps `eth0`.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet loglevel=4 reboot=t panic=-1 mitigations=off \
                              nokaslr tsc=reliable net.ifnames=0";

fn device_arguments(id: usize, at: &VhostUser, device: &Device) -> Vec<String> {
    let queues = at.queues;
    let size = at
        .queue_size
        .map_or_else(String::new, |it| format!(",queue-size={it}"));
    let reconnect = if at.reconnect { ",reconnect=1" } else { "" };
    // A comma in an option's value is written twice (QEMU's manual, -drive).
    let path = at.socket.to_string_lossy().replace(',', ",,");
    let mut arguments = vec![
        "-chardev".to_owned(),
        format!("socket,id=dev{id},path={path}{reconnect}"),
    ];
    let device = match device {
        Device::Blk => format!("vhost-user-blk-pci,chardev=dev{id},num-queues={queues}{size}"),
        Device::Fs { tag } => {
            format!("vhost-user-fs-pci,chardev=dev{id},tag={tag},num-request-queues={queues}{size}")
        }
        Device::Vsock => format!("vhost-user-vsock-pci,chardev=dev{id}"),
        Device::Net { mac } => {
            arguments.push("-netdev".to_owned());
            arguments.push(format!(
                "vhost-user,id=net{id},chardev=dev{id},queues={queues}"
            ));
            let mq = if queues > 1 { "on" } else { "off" };
            format!("virtio-net-pci,netdev=net{id},mac={mac},mq={mq},romfile=")
        }
    };
    arguments.extend(["-device".to_owned(), device]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_device_is_a_chardev_a_netdev_and_a_device() {
        let socket = VhostUser::new("/tmp/a,b.sock").queues(2).reconnect();
        let device = Device::Net {
            mac: "52:54:00:00:00:01".to_owned(),
        };
        let expected = [
            "-chardev",
            "socket,id=dev3,path=/tmp/a,,b.sock,reconnect=1",
            "-netdev",
            "vhost-user,id=net3,chardev=dev3,queues=2",
            "-device",
            "virtio-net-pci,netdev=net3,mac=52:54:00:00:00:01,mq=on,romfile=",
        ];
        assert_eq!(device_arguments(3, &socket, &device), expected);
    }
}

//! User-Mode Linux: a second real Linux front end, at native CPU speed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::running::{EXIT_MARK, Port};
use super::{Error, Guest, Outcome};
use crate::need;
use crate::process::Daemon;
use crate::scratch::Scratch;

const LIMIT: Duration = Duration::from_secs(30);
const MODULES: &str = "/usr/lib/uml/modules";

/// Device types of `virtio_uml.device` (virtio 1.2, 5).
#[derive(Clone, Copy, Debug)]
enum DeviceId {
    Net = 1,
    Blk = 2,
    Fs = 26,
}

/// A guest to be started whose root is the host's, read-only.
///
/// The script runs under `/bin/sh` with the host's programs. `/dev`, `/proc` and `/sys` are the
/// guest's own; `/run` and `/mnt` are empty tmpfs to write and mount on. Block devices are
/// `/dev/vda`, ...; file systems are mounted by the tag that the daemon's configuration space
/// tells (the daemon must offer the CONFIG protocol feature); network devices are `eth0`, ...
#[derive(Clone, Debug)]
pub struct UmlGuest {
    script: String,
    memory_mib: u32,
    devices: Vec<(PathBuf, DeviceId)>,
    modules: Vec<String>,
    arguments: Vec<String>,
    limit: Duration,
}

impl UmlGuest {
    /// A guest of 256 MiB that runs `script`.
    #[must_use]
    pub fn new(script: impl Into<String>) -> Self {
        Self {
            script: script.into(),
            memory_mib: 256,
            devices: Vec::new(),
            modules: Vec::new(),
            arguments: Vec::new(),
            limit: LIMIT,
        }
    }

    /// The guest's memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Attaches a block daemon.
    #[must_use]
    pub fn blk(self, socket: impl AsRef<Path>) -> Self {
        self.device(socket, DeviceId::Blk, "virtio_blk")
    }

    /// Attaches a file system daemon.
    #[must_use]
    pub fn fs(self, socket: impl AsRef<Path>) -> Self {
        self.device(socket, DeviceId::Fs, "virtiofs")
    }

    /// Attaches a network daemon.
    #[must_use]
    pub fn net(self, socket: impl AsRef<Path>) -> Self {
        self.device(socket, DeviceId::Net, "virtio_net")
    }

    fn device(mut self, socket: impl AsRef<Path>, id: DeviceId, driver: &str) -> Self {
        self.devices.push((socket.as_ref().to_owned(), id));
        self.module(driver)
    }

    /// Loads a module of UML's kernel, with what it depends on.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        if !self.modules.iter().any(|module| module == name) {
            self.modules.push(name.to_owned());
        }
        self
    }

    /// Adds an argument to the kernel's command line, such as a device of UML's own.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Changes the time limit from the guest's start to its script's end (30 s).
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
        let linux = need::program("linux.uml")?;
        need::file(MODULES, "user-mode-linux")?;
        let scratch = Scratch::new("uml").map_err(Error::io("make a directory for the guest"))?;
        let init = self.write_scripts(&scratch)?;
        let port = Port::new()?;
        let number = port.number();
        let mut command = Daemon::builder(linux)
            .arg(format!("mem={}M", self.memory_mib))
            .args([
                "root=/dev/root",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                "quiet",
            ])
            .arg(format!("init={}", init.display()))
            .args(["con=null", "con0=fd:0,fd:1", "ssl=null"])
            .arg(format!("ssl0=fd:{number},fd:{number}"))
            // The guest's memory is a file here, unlinked at once; on a disk it would be slow.
            .env("TMPDIR", "/dev/shm")
            // The console helper's directory goes with the guest.
            .env("HOME", scratch.path());
        for (socket, id) in &self.devices {
            command = command.arg(format!(
                "virtio_uml.device={}:{}",
                socket.display(),
                *id as u8
            ));
        }
        command = command.args(&self.arguments);
        let (near, far) = port.split();
        let hypervisor = command.keep(far).spawn()?;
        Guest::watch(
            "User-Mode Linux guest",
            hypervisor,
            near,
            self.limit,
            scratch,
        )
    }

    fn write_scripts(&self, scratch: &Scratch) -> Result<PathBuf, Error> {
        let write = |name, text: &str| {
            let written = scratch.file(name, text);
            written.map_err(Error::io("write the guest's script"))
        };
        let script = write("script", &self.script)?;
        let init = write("init", &init(&script, &self.modules))?;
        let executable = fs::set_permissions(&init, fs::Permissions::from_mode(0o755));
        executable.map_err(Error::io("make the guest's init executable"))?;
        Ok(init)
    }
}

/// PID 1. The script's stream is the first serial line; modprobe finds UML's modules through a
/// link in the tmpfs, as the host's root is read-only.
fn init(script: &Path, modules: &[String]) -> String {
    let script = script.display();
    let modules = modules.join(" ");
    format!(
        r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir -p /run/uml/lib
ln -s {MODULES} /run/uml/lib/modules
for module in {modules}; do
    modprobe -d /run/uml "$module" || echo "lab: cannot load $module"
done
exec 3<>/dev/ttyS0
stty raw -echo <&3
sh {script} <&3 >&3 2>&3
printf '{EXIT_MARK}%d\n' $? >&3
stty drain <&3 2>/dev/null
sync
umount -a -r -t ext4,virtiofs 2>/dev/null
busybox poweroff -f
"#
    )
}

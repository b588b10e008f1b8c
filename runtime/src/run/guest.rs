//! The machine a guest runs in, and what the guest is told.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guest_image::{Cache, GuestImage, Kernel, MODULES, cpio};
use ringside_protocol::{CONFIG_PATH, GuestConfig, Process, RawText, WindowSize};

use super::Config;
use super::console;
use super::daemons::Devices;
use super::directory::RunDirectory;
use crate::hypervisor::{Accelerator, Machine, SerialPort};
use crate::{network, programs};

/// Panic and reboot end the machine at once (`-no-reboot`); the console stays for error messages.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t 8250.nr_uarts=1 tsc=reliable";

/// A translated guest runs no other guest's code speculatively, and only loses time by guarding
/// against it or by moving the kernel about.
const TRANSLATED: &str = " mitigations=off nokaslr";

/// Kernel and initramfs, from the cache or built now.
pub(super) fn image() -> Result<GuestImage> {
    let agent = programs::AGENT.find()?;
    let cache = Cache::open_default()?;
    let kernel = Kernel::for_guests(&cache).context("cannot get a guest kernel")?;
    GuestImage::build(&cache, &kernel, &agent, MODULES).context("cannot build the guest image")
}

/// Puts a machine together.
pub(super) struct Builder<'a> {
    pub(super) config: &'a Config,
    pub(super) directory: &'a RunDirectory,
    pub(super) image: GuestImage,
    pub(super) accelerator: Accelerator,
}

impl Builder<'_> {
    pub(super) fn machine(
        self,
        devices: Devices,
        ports: Vec<SerialPort>,
        terminal: Option<WindowSize>,
    ) -> Result<Machine> {
        let guest = self.guest_config(&devices, terminal)?;
        let extra = match self.accelerator {
            Accelerator::Kvm => "",
            Accelerator::Tcg => TRANSLATED,
        };
        Ok(Machine {
            name: format!("ringside-{}", self.directory.id()),
            cpus: self.config.cpus,
            memory: self.config.memory.0,
            huge_pages: false,
            kernel: self.image.vmlinux.clone(),
            initramfs: self.initramfs(&guest)?,
            command_line: format!("{COMMAND_LINE}{extra}"),
            console: console::record(&self.directory.console_log())?,
            ports,
            file_systems: devices.file_systems,
            disks: devices.disks,
            networks: devices.network.into_iter().collect(),
            vsock: None,
        })
    }

    fn guest_config(&self, devices: &Devices, terminal: Option<WindowSize>) -> Result<GuestConfig> {
        let text = |value: &std::ffi::OsString| RawText::from(value.clone());
        Ok(GuestConfig {
            hostname: "ringside".to_owned(),
            root: devices
                .root
                .clone()
                .context("no root file system was set up")?,
            directories: Vec::new(),
            disks: devices.data_disks.clone(),
            network: devices.network.as_ref().map(|_| network::guest_network()),
            process: Process {
                args: self.config.command.iter().map(text).collect(),
                env: self
                    .config
                    .env
                    .iter()
                    .map(|(k, v)| (text(k), text(v)))
                    .collect(),
                cwd: RawText::from(self.config.cwd.clone()),
                terminal,
            },
        })
    }

    /// The image's initramfs, followed by an archive with this run's configuration.
    fn initramfs(&self, guest: &GuestConfig) -> Result<PathBuf> {
        let mut archive = cpio::Archive::new();
        archive.file(CONFIG_PATH, 0o600, &serde_json::to_vec(guest)?)?;
        let path = self.directory.file("initramfs");
        append(&self.image.initramfs, &archive.finish(), &path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn append(base: &Path, extra: &[u8], path: &Path) -> std::io::Result<()> {
    fs::copy(base, path)?;
    File::options().append(true).open(path)?.write_all(extra)
}

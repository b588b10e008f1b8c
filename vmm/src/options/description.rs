//! A machine as described: by flags, by a file, or by both. One structure is what both are read into, so
//! they say the same with the same words.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{DeviceDescription, device, text};
use crate::memory::ByteSize;
use crate::virtio::Kind;

/// Words for a machine. What is missing has its usual value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Description {
    /// Linux kernel: bzImage, or ELF (vmlinux)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,

    /// Initial root file system, a cpio archive
    #[arg(long, value_name = "FILE", alias = "initrd")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<PathBuf>,

    /// The kernel's command line [default: console=ttyS0]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,

    /// How the kernel is entered; PVH where an ELF kernel offers it, else Linux's 64-bit entry
    #[arg(long, value_name = "PROTOCOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_protocol: Option<BootProtocol>,

    /// Processors, 1 to 64 [default: 1]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u8>,

    /// Memory, as 512M or 4G [default: 256M]
    #[arg(long, value_name = "SIZE")]
    #[serde(with = "text::size", skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,

    /// Take memory from the host's reserved 2 MiB pages
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<bool>,

    /// Have every page of memory before the guest starts
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefault: Option<bool>,

    /// Where the serial port ends: tty (Ctrl-A x ends the machine), null, file=PATH, socket=PATH [default: tty]
    #[arg(long, value_name = "END")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,

    /// Disk: socket=PATH[,queues=N][,queue-size=N][,id=NAME]; may be given again
    #[arg(long, value_name = "DEVICE", value_parser = |typed: &str| device::typed(Kind::Block, typed))]
    #[serde(
        deserialize_with = "text::disks",
        serialize_with = "text::write_all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub disk: Vec<DeviceDescription>,

    /// Network interface: socket=PATH[,mac=ADDRESS][,queues=PAIRS][,queue-size=N][,id=NAME]; may be given
    /// again
    #[arg(long, value_name = "DEVICE", value_parser = |typed: &str| device::typed(Kind::Net, typed))]
    #[serde(
        deserialize_with = "text::nets",
        serialize_with = "text::write_all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub net: Vec<DeviceDescription>,

    /// File system: socket=PATH[,tag=NAME][,queues=N][,queue-size=N][,id=NAME]; may be given again
    #[arg(long, value_name = "DEVICE", value_parser = |typed: &str| device::typed(Kind::Fs, typed))]
    #[serde(
        deserialize_with = "text::file_systems",
        serialize_with = "text::write_all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub fs: Vec<DeviceDescription>,

    /// Sockets between host and guest: socket=PATH[,cid=NUMBER][,queue-size=N][,id=NAME]
    #[arg(long, value_name = "DEVICE", value_parser = |typed: &str| device::typed(Kind::Vsock, typed))]
    #[serde(
        deserialize_with = "text::vsock",
        serialize_with = "text::write_one",
        skip_serializing_if = "Option::is_none"
    )]
    pub vsock: Option<DeviceDescription>,

    /// Give the guest random numbers of the host's: virtio-rng
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<bool>,

    /// Let the guest give memory back: free pages by itself, and as much as SIZE, which can be changed while
    /// it runs (0 is a balloon without air): virtio-balloon
    #[arg(long, value_name = "SIZE")]
    #[serde(with = "text::size", skip_serializing_if = "Option::is_none")]
    pub balloon: Option<ByteSize>,

    /// Socket to give the machine orders on, HTTP and JSON: docs/vmm-api.yaml
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_socket: Option<PathBuf>,

    /// End when the guest resets, instead of starting it again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_reboot: Option<bool>,

    /// Run even where the host's KVM emulates the guest's kernel, hundreds of times too slow
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_probe: Option<bool>,

    /// What to log on standard error: error, warn, info, debug, or a filter of `tracing` [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

/// How the kernel shall be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootProtocol {
    /// 64-bit entry, for bzImage and ELF
    Linux,
    /// PVH entry, for ELF
    Pvh,
}

impl Description {
    /// A flag that was typed and would make a restored machine another one.
    pub(super) fn changes_the_machine(&self) -> Option<&'static str> {
        [
            ("cpus", self.cpus.is_some()),
            ("memory", self.memory.is_some()),
            ("disk", !self.disk.is_empty()),
            ("net", !self.net.is_empty()),
            ("fs", !self.fs.is_empty()),
            ("vsock", self.vsock.is_some()),
            ("rng", self.rng.is_some()),
            ("balloon", self.balloon.is_some()),
        ]
        .into_iter()
        .find_map(|(name, is_given)| is_given.then_some(name))
    }

    /// This one, and what it does not say from `base`. Devices that may be given again are those of both,
    /// the base's first.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        // Every field is named, so that a new one is not forgotten here.
        let Self {
            kernel,
            initramfs,
            cmdline,
            boot_protocol,
            cpus,
            memory,
            hugepages,
            prefault,
            serial,
            disk,
            net,
            fs,
            vsock,
            rng,
            balloon,
            api_socket,
            no_reboot,
            no_probe,
            log_level,
        } = self;
        Self {
            kernel: kernel.or(base.kernel),
            initramfs: initramfs.or(base.initramfs),
            cmdline: cmdline.or(base.cmdline),
            boot_protocol: boot_protocol.or(base.boot_protocol),
            cpus: cpus.or(base.cpus),
            memory: memory.or(base.memory),
            hugepages: hugepages.or(base.hugepages),
            prefault: prefault.or(base.prefault),
            serial: serial.or(base.serial),
            disk: [base.disk, disk].concat(),
            net: [base.net, net].concat(),
            fs: [base.fs, fs].concat(),
            vsock: vsock.or(base.vsock),
            rng: rng.or(base.rng),
            balloon: balloon.or(base.balloon),
            api_socket: api_socket.or(base.api_socket),
            no_reboot: no_reboot.or(base.no_reboot),
            no_probe: no_probe.or(base.no_probe),
            log_level: log_level.or(base.log_level),
        }
    }
}

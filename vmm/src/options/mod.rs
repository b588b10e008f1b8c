//! What was typed, and what it means.

mod device;
mod error;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

pub use device::Named;
pub use error::OptionsError;

use crate::boot::{self, BootConfig, NamedFile, Protocol};
use crate::console::ConsoleConfig;
use crate::kvm::Probe;
use crate::machine::MachineConfig;
use crate::memory::{ByteSize, MemoryConfig};
use crate::virtio::Kind;

/// Processors at most.
const PROCESSORS: std::ops::RangeInclusive<u8> = 1..=64;

/// Runs a virtual machine whose devices are vhost-user daemons.
#[derive(Debug, Parser)]
#[command(name = "ringside-vmm", version)]
pub struct Options {
    /// Linux kernel: bzImage, or ELF (vmlinux)
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    kernel: Option<PathBuf>,

    /// Initial root file system, a cpio archive
    #[arg(long, value_name = "FILE", alias = "initrd")]
    initramfs: Option<PathBuf>,

    /// The kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "console=ttyS0",
        allow_hyphen_values = true
    )]
    cmdline: String,

    /// How the kernel is entered; PVH where an ELF kernel offers it, else Linux's 64-bit entry
    #[arg(long, value_name = "PROTOCOL")]
    boot_protocol: Option<BootProtocol>,

    /// Processors, 1 to 64
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    cpus: u8,

    /// Memory, as 512M or 4G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: ByteSize,

    /// Take memory from the host's reserved 2 MiB pages
    #[arg(long)]
    hugepages: bool,

    /// Have every page of memory before the guest starts
    #[arg(long)]
    prefault: bool,

    /// Where the serial port ends: tty (Ctrl-A x ends the machine), null, file=PATH, socket=PATH
    #[arg(long, value_name = "END", default_value = "tty")]
    serial: String,

    /// Disk: socket=PATH[,queues=N][,queue-size=N]; may be given again
    #[arg(long, value_name = "DEVICE")]
    disk: Vec<String>,

    /// Network interface: socket=PATH[,mac=ADDRESS][,queues=PAIRS][,queue-size=N]; may be given again
    #[arg(long, value_name = "DEVICE")]
    net: Vec<String>,

    /// File system: socket=PATH[,tag=NAME][,queues=N][,queue-size=N]; may be given again
    #[arg(long, value_name = "DEVICE")]
    fs: Vec<String>,

    /// Sockets between host and guest: socket=PATH[,cid=NUMBER][,queue-size=N]
    #[arg(long, value_name = "DEVICE")]
    vsock: Option<String>,

    /// Give the guest random numbers of the host's: virtio-rng
    #[arg(long)]
    rng: bool,

    /// End when the guest resets, instead of starting it again
    #[arg(long)]
    no_reboot: bool,

    /// Run even where the host's KVM emulates the guest's kernel, hundreds of times too slow
    #[arg(long)]
    no_probe: bool,

    /// Measure the host's KVM, say how fast it is, and end
    #[arg(long)]
    check: bool,

    /// What to log on standard error: error, warn, info, debug, or a filter of `tracing`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log_level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BootProtocol {
    /// 64-bit entry, for bzImage and ELF
    Linux,
    /// PVH entry, for ELF
    Pvh,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Measure KVM.
    Check,
    /// Run a machine.
    Run(Box<Config>),
}

/// A machine that can be made.
#[derive(Debug)]
pub struct Config {
    /// Its memory.
    pub memory: MemoryConfig,
    /// Its processors and kernel.
    pub machine: MachineConfig,
    /// Its serial port's end.
    pub console: ConsoleConfig,
    /// Its devices, in the order of their places on the bus.
    pub devices: Vec<Named>,
    /// It has a source of random numbers.
    pub rng: bool,
    /// A reset ends it.
    pub no_reboot: bool,
}

impl Options {
    /// Checks what was typed and opens the files it names.
    ///
    /// # Errors
    /// When an option makes no sense, or a file cannot be opened.
    pub fn validate(self) -> Result<Action, OptionsError> {
        let Some(kernel) = self.kernel.filter(|_| !self.check) else {
            return Ok(Action::Check);
        };
        if !PROCESSORS.contains(&self.cpus) {
            return Err(OptionsError::Processors(self.cpus));
        }
        boot::check_command_line(&self.cmdline)?;
        let memory = MemoryConfig {
            size: self.memory,
            hugepages: self.hugepages,
            prefault: self.prefault,
        };
        let boot = BootConfig {
            kernel: NamedFile::open(kernel)?,
            initramfs: self.initramfs.map(NamedFile::open).transpose()?,
            command_line: self.cmdline,
            protocol: self.boot_protocol.map(|protocol| match protocol {
                BootProtocol::Linux => Protocol::Linux,
                BootProtocol::Pvh => Protocol::Pvh,
            }),
        };
        let probe = if self.no_probe {
            Probe::Skip
        } else {
            Probe::Check
        };
        let devices = [
            (Kind::Block, self.disk),
            (Kind::Net, self.net),
            (Kind::Fs, self.fs),
            (Kind::Vsock, self.vsock.into_iter().collect()),
        ];
        Ok(Action::Run(Box::new(Config {
            devices: device::parse_all(devices)?,
            memory,
            machine: MachineConfig {
                processors: self.cpus,
                boot,
                probe,
            },
            console: console(&self.serial)?,
            rng: self.rng,
            no_reboot: self.no_reboot,
        })))
    }
}

fn console(typed: &str) -> Result<ConsoleConfig, OptionsError> {
    match typed.split_once('=') {
        None if typed == "tty" => Ok(ConsoleConfig::Terminal),
        None if typed == "null" => Ok(ConsoleConfig::Null),
        Some(("file", path)) if !path.is_empty() => Ok(ConsoleConfig::File(path.into())),
        Some(("socket", path)) if !path.is_empty() => Ok(ConsoleConfig::Socket(path.into())),
        _ => Err(OptionsError::Serial(typed.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(arguments: &[&str]) -> Result<Action, OptionsError> {
        let words = [&["ringside-vmm"], arguments].concat();
        Options::try_parse_from(words).unwrap().validate()
    }

    fn message(arguments: &[&str]) -> String {
        let kernel = ["--kernel", "/dev/null"];
        validate(&[&kernel, arguments].concat())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_machine_as_typed() {
        let typed = [
            "--kernel=/dev/null",
            "--cpus=2",
            "--memory=4G",
            "--serial=socket=/run/console",
            "--boot-protocol=pvh",
        ];
        let Ok(Action::Run(config)) = validate(&typed) else {
            panic!("not accepted")
        };
        assert_eq!(config.machine.processors, 2);
        assert_eq!(config.memory.size, ByteSize(4 << 30));
        assert_eq!(config.machine.boot.protocol, Some(Protocol::Pvh));
        let console = ConsoleConfig::Socket("/run/console".into());
        assert_eq!(config.console, console);
    }

    #[test]
    fn what_makes_no_sense_is_told_in_a_sentence() {
        assert_eq!(message(&["--cpus=0"]), "--cpus 0: a guest has 1 to 64");
        assert_eq!(
            message(&["--serial=file="]),
            "--serial file=: neither tty, null, file=PATH nor socket=PATH"
        );
        assert_eq!(
            message(&["--cmdline=a\nb"]),
            "--cmdline has a zero byte or a line break"
        );
        assert_eq!(message(&["--initramfs=/no/such"]), "cannot open /no/such");
        assert!(Options::try_parse_from(["ringside-vmm"]).is_err());
        assert!(matches!(validate(&["--check"]), Ok(Action::Check)));
    }
}

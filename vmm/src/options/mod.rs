//! What was typed or written into a file, and what it means.

mod description;
mod device;
mod error;
mod file;
mod text;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser;
use vhost_daemon::sandbox::EnclosureOptions;

pub use description::{BootProtocol, Description};
pub use device::DeviceDescription;
pub use error::{DeviceError, OptionsError, TextError};
pub use file::{parse, parse_device};
pub(crate) use text::Size;

use crate::boot::{self, BootConfig, NamedFile, Protocol};
use crate::console::ConsoleConfig;
use crate::kvm::Probe;
use crate::machine::MachineConfig;
use crate::memory::{ByteSize, MemoryConfig};
use crate::snapshot::Snapshot;
use crate::vhost_user::FrontEndConfig;
use crate::virtio::Kind;

/// Processors at most.
const PROCESSORS: std::ops::RangeInclusive<u8> = 1..=64;
const USUAL_MEMORY: ByteSize = ByteSize(256 << 20);
const USUAL_COMMAND_LINE: &str = "console=ttyS0";

/// Runs a virtual machine whose devices are vhost-user daemons.
#[derive(Debug, Parser)]
#[command(name = "ringside-vmm", version)]
pub struct Options {
    /// TOML or JSON with the same words as these flags, which override it; devices are added to its own
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Go on with the machine in this folder, which a snapshot made; it has its devices and its size
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["config", "check"])]
    restore: Option<PathBuf>,

    /// Begin paused: POST /v1/resume lets it go on
    #[arg(long)]
    pub paused: bool,

    #[command(flatten)]
    machine: Description,

    /// How it is closed in.
    #[command(flatten)]
    pub enclosure: EnclosureOptions,

    /// See nothing of the host but this folder, in which sockets, console and snapshots are then named from
    /// its root; with mounts and processes of its own. Kernel, initramfs and what is restored are opened before
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    pub jail: Option<PathBuf>,

    /// Measure the host's KVM, say how fast it is, and end
    #[arg(long)]
    pub check: bool,
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
    pub devices: Vec<NamedDevice>,
    /// It has a source of random numbers.
    pub rng: bool,
    /// It has a balloon, of so many bytes at first.
    pub balloon: Option<ByteSize>,
    /// Where it takes orders.
    pub api_socket: Option<PathBuf>,
    /// A reset ends it.
    pub no_reboot: bool,
}

/// A device of a daemon, by the name that it has in this machine alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDevice {
    /// Its name.
    pub id: String,
    /// How messages about it begin.
    pub label: String,
    /// What it is.
    pub front_end: FrontEndConfig,
}

impl NamedDevice {
    /// As somebody would describe it who knows its name.
    #[must_use]
    pub fn describe(&self) -> DeviceDescription {
        DeviceDescription {
            id: Some(self.id.clone()),
            front_end: self.front_end.clone(),
        }
    }
}

impl Options {
    /// The snapshot to go on with.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, OptionsError> {
        let snapshot = self.restore.as_deref().map(Snapshot::open).transpose()?;
        Ok(snapshot)
    }

    /// What the flags say, over what the file or the snapshot says.
    ///
    /// # Errors
    /// When the file cannot be read, or is no description; or a flag wants a snapshot's machine to be
    /// another one.
    pub fn description(self, snapshot: Option<&Snapshot>) -> Result<Description, OptionsError> {
        let Some(snapshot) = snapshot else {
            let base = self.config.as_deref().map(file::read).transpose()?;
            return Ok(self.machine.over(base.unwrap_or_default()));
        };
        match self.machine.changes_the_machine() {
            Some(flag) => Err(OptionsError::Restored(flag)),
            None => Ok(self.machine.over(snapshot.machine.description.clone())),
        }
    }
}

impl Description {
    /// Checks what is said and opens the files it names.
    ///
    /// # Errors
    /// When it makes no sense, or a file cannot be opened.
    pub fn validate(self) -> Result<Config, OptionsError> {
        let description = self.clone();
        let kernel = self.kernel.ok_or(OptionsError::NoKernel)?;
        let processors = self.cpus.unwrap_or(1);
        if !PROCESSORS.contains(&processors) {
            return Err(OptionsError::Processors(processors));
        }
        let command_line = self.cmdline.unwrap_or_else(|| USUAL_COMMAND_LINE.into());
        boot::check_command_line(&command_line)?;
        let boot = BootConfig {
            kernel: NamedFile::open(kernel)?,
            initramfs: self.initramfs.map(NamedFile::open).transpose()?,
            command_line,
            protocol: self.boot_protocol.map(Protocol::from),
        };
        let probe = if self.no_probe.unwrap_or(false) {
            Probe::Skip
        } else {
            Probe::Check
        };
        let memory = MemoryConfig {
            size: self.memory.unwrap_or(USUAL_MEMORY),
            hugepages: self.hugepages.unwrap_or(false),
            prefault: self.prefault.unwrap_or(false),
        };
        let devices = [self.disk, self.net, self.fs, Vec::from_iter(self.vsock)].concat();
        Ok(Config {
            memory,
            machine: MachineConfig {
                description,
                processors,
                boot,
                probe,
            },
            console: console(self.serial.as_deref().unwrap_or("tty"))?,
            devices: name(devices)?,
            rng: self.rng.unwrap_or(false),
            balloon: balloon(self.balloon, memory)?,
            api_socket: self.api_socket,
            no_reboot: self.no_reboot.unwrap_or(false),
        })
    }
}

impl From<BootProtocol> for Protocol {
    fn from(protocol: BootProtocol) -> Self {
        match protocol {
            BootProtocol::Linux => Self::Linux,
            BootProtocol::Pvh => Self::Pvh,
        }
    }
}

/// Who has no name gets one: disk0, disk1, ...
fn name(devices: Vec<DeviceDescription>) -> Result<Vec<NamedDevice>, OptionsError> {
    // Those of devices in the process.
    let own = [Kind::Rng, Kind::Balloon];
    let mut taken: BTreeSet<String> = own.map(|kind| kind.word().to_owned()).into();
    for id in devices.iter().filter_map(|device| device.id.clone()) {
        if let Some(same) = taken.replace(id) {
            return Err(OptionsError::SameId(same));
        }
    }
    let named = devices.into_iter().map(|device| {
        let device = device.named(|id| taken.contains(id));
        taken.insert(device.id.clone());
        device
    });
    Ok(named.collect())
}

impl DeviceDescription {
    /// With its own name, or the first of its kind that is not taken.
    #[must_use]
    pub fn named(self, is_taken: impl Fn(&str) -> bool) -> NamedDevice {
        let label = self.label();
        let kind = self.front_end.kind.word();
        let free = || {
            let mut names = (0_u32..).map(|number| format!("{kind}{number}"));
            names.find(|name| !is_taken(name)).unwrap_or_default()
        };
        NamedDevice {
            id: self.id.unwrap_or_else(free),
            label,
            front_end: self.front_end,
        }
    }
}

fn balloon(
    balloon: Option<ByteSize>,
    memory: MemoryConfig,
) -> Result<Option<ByteSize>, OptionsError> {
    match balloon {
        // Reserved pages go back to a pool that may be empty when the guest wants them again.
        Some(_) if memory.hugepages => Err(OptionsError::HugeBalloon),
        Some(balloon) if balloon >= memory.size => Err(OptionsError::Balloon(balloon)),
        other => Ok(other),
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

    fn validate(arguments: &[&str]) -> Result<Config, OptionsError> {
        let words = [&["ringside-vmm"], arguments].concat();
        let options = Options::try_parse_from(words).unwrap();
        options.description(None)?.validate()
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
        let config = validate(&typed).unwrap();
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
        assert_eq!(
            validate(&["--cpus=1"]).unwrap_err().to_string(),
            "no kernel: give --kernel FILE, or `kernel` in the file of --config"
        );
        assert_eq!(
            message(&["--config=/no/such"]),
            "--config: cannot read /no/such"
        );
    }

    #[test]
    fn reserved_pages_are_not_given_back() {
        let refused = "--balloon does not go with --hugepages: a page that the guest gave back may be another's \
            when it is touched again";
        assert_eq!(message(&["--hugepages", "--balloon=0"]), refused);
        // Neither where one of the two is the file's, or the snapshot's.
        let file = parse(b"kernel = \"/dev/null\"\nballoon = 0\n").unwrap();
        let typed = Description {
            hugepages: Some(true),
            ..Description::default()
        };
        let error = typed.over(file).validate().unwrap_err();
        assert_eq!(error.to_string(), refused);
    }

    #[test]
    fn every_device_has_a_name_of_its_own() {
        let disk = "--disk=socket=/a";
        let named = ["--disk=socket=/b,id=disk1", "--net=socket=/c,id=lan"];
        let kernel = "--kernel=/dev/null";
        let config = validate(&[kernel, disk, named[0], disk, named[1]]).unwrap();
        let names: Vec<&str> = config.devices.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(names, ["disk0", "disk1", "disk2", "lan"]);
        assert_eq!(
            message(&[named[1], "--fs=socket=/d,tag=t,id=lan"]),
            "two devices have id=lan"
        );
        assert_eq!(
            message(&["--disk=socket=/a,id=rng"]),
            "two devices have id=rng"
        );
    }

    #[test]
    fn a_flag_overrides_the_file_and_devices_are_added() {
        let file = "kernel = \"/dev/null\"\ncpus = 3\nrng = true\nmemory = \"1G\"\n\
            vsock = { socket = \"/v\", cid = 4 }\n[[disk]]\nsocket = \"/a\"\n";
        let typed = Description {
            cpus: Some(2),
            rng: Some(false),
            disk: vec![device::typed(crate::virtio::Kind::Block, "socket=/b").unwrap()],
            ..Description::default()
        };
        let config = typed.over(parse(file.as_bytes()).unwrap()).validate();
        let config = config.unwrap();
        assert_eq!((config.machine.processors, config.rng), (2, false));
        assert_eq!(config.memory.size, ByteSize(1 << 30));
        let sockets = config.devices.iter().map(|it| &it.front_end.socket);
        let sockets: Vec<_> = sockets.map(|it| it.to_str().unwrap()).collect();
        assert_eq!(sockets, ["/a", "/b", "/v"]);
    }
}

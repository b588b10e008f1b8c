//! What somebody outside may want of a machine, and how it is carried out.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use super::{DeviceInfo, Ended, Machine, MachineError};
use crate::kvm::KvmError;
use crate::memory::ByteSize;
use crate::options::DeviceDescription;
use crate::snapshot::SnapshotError;
use crate::vhost_user::{FrontEnd, FrontEndError};
use crate::virtio::{Device as _, Kind, SaveError};

/// An order.
#[derive(Debug)]
pub enum Command {
    /// Tell how the machine is.
    Info,
    /// Stop processors and devices for a while.
    Pause,
    /// Let them go on.
    Resume,
    /// Press the power button: the guest's operating system shuts down, if it listens.
    PressPowerButton,
    /// Start it again, as if somebody pressed its reset button.
    Reset,
    /// End it, as if somebody pulled its plug.
    Quit,
    /// Tell of its devices.
    Devices,
    /// Plug a device in, whose daemon is connected.
    Add(DeviceDescription, Box<FrontEnd>),
    /// Ask the guest to let go of a device; the machine lets go of it when the guest has.
    Remove(String),
    /// Tell what was counted, as Prometheus text.
    Metrics,
    /// Tell of its memory.
    Memory,
    /// Blow the balloon up, or let air out: so many bytes are wanted in it.
    Balloon(ByteSize),
    /// Write the machine into a folder.
    Snapshot(PathBuf),
}

/// What an order brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It was begun, and is done when the guest does its part.
    Begun,
    /// How the machine is.
    Info(Info),
    /// Its devices.
    Devices(Vec<DeviceInfo>),
    /// The device that was added.
    Added(DeviceInfo),
    /// What was counted.
    Metrics(String),
    /// Its memory.
    Memory(MemoryInfo),
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Of the program.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// Running or paused.
    pub state: State,
    /// Processors.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Devices on the bus.
    pub devices: usize,
}

/// A machine's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryInfo {
    /// What the guest was given.
    pub size: u64,
    /// What of it takes room on the host.
    pub resident: u64,
    /// Its balloon.
    pub balloon: Option<BalloonInfo>,
}

/// A balloon, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BalloonInfo {
    /// What is wanted in it.
    pub target: u64,
    /// What is in it.
    pub actual: u64,
    /// What the guest gave back since the start, by balloon or by report.
    pub returned: u64,
}

/// Whether the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It does.
    Running,
    /// It waits for [`Command::Resume`].
    Paused,
}

/// Why an order is not carried out.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Somebody ended it.
    #[error("the machine has ended")]
    Ended,
    /// A name that nobody has.
    #[error("there is no device {0}")]
    NoDevice(String),
    /// A name that somebody has.
    #[error("there is a device {0} already")]
    SameId(String),
    /// A second device where one is possible.
    #[error("the machine has a vsock device already")]
    SecondVsock,
    /// The daemon.
    #[error("{label}")]
    Device {
        /// Which device.
        label: String,
        /// What is wrong.
        source: FrontEndError,
    },
    /// The bus or the kernel.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A daemon that does not complete what it began.
    #[error("the daemon of {0} does not stop; the machine goes on")]
    Busy(String),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A device's daemon does not hand out what it knows.
    #[error("{id}")]
    Save {
        /// The device.
        id: String,
        /// Why.
        source: SaveError,
    },
    /// A machine without one.
    #[error("the machine has no balloon: --balloon 0 gives it one")]
    NoBalloon,
    /// A balloon in which no guest has room.
    #[error("a balloon of {0} is all of the guest's memory")]
    LargeBalloon(ByteSize),
    /// The kernel does not tell.
    #[error("cannot tell how much memory is used")]
    Resident(#[source] io::Error),
    /// The snapshot's files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// What follows of an order.
pub(super) enum Outcome {
    Answer(Result<Answer, Refusal>),
    /// It is done, and the machine ends.
    End(Ended),
}

impl Machine<'_> {
    pub(super) fn carry_out(&mut self, command: Command) -> Outcome {
        Outcome::Answer(match command {
            Command::Info => Ok(Answer::Info(self.info())),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::PressPowerButton => {
                self.platform.power().press_button();
                Ok(Answer::Begun)
            }
            Command::Reset => return Outcome::End(Ended::Restart),
            Command::Quit => return Outcome::End(Ended::Quit),
            Command::Devices => Ok(Answer::Devices(self.devices.infos())),
            Command::Add(described, device) => self.add(described, *device),
            Command::Remove(id) => self.ask_to_eject(&id),
            Command::Metrics => Ok(Answer::Metrics(self.metrics())),
            Command::Memory => self.memory(),
            Command::Balloon(size) => self.resize_balloon(size),
            Command::Snapshot(folder) => self.snapshot(&folder),
        })
    }

    fn info(&self) -> Info {
        Info {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            state: if self.paused_at.is_some() {
                State::Paused
            } else {
                State::Running
            },
            cpus: self.processors.len(),
            memory: self.vm.memory_size(),
            devices: self.devices.iter().count(),
        }
    }

    fn memory(&self) -> Result<Answer, Refusal> {
        let memory = self.vm.memory();
        let balloon = self.devices.balloon().map(|balloon| BalloonInfo {
            target: balloon.target(),
            actual: balloon.actual(),
            returned: balloon.returned(),
        });
        Ok(Answer::Memory(MemoryInfo {
            size: memory.size(),
            resident: memory.resident().map_err(Refusal::Resident)?,
            balloon,
        }))
    }

    fn resize_balloon(&self, size: ByteSize) -> Result<Answer, Refusal> {
        let balloon = self.devices.balloon().ok_or(Refusal::NoBalloon)?;
        if size.0 >= self.vm.memory_size() {
            return Err(Refusal::LargeBalloon(size));
        }
        balloon.resize(size.0);
        Ok(Answer::Begun)
    }

    /// Processors first: what a driver does must find its device.
    pub(super) fn pause(&mut self) -> Result<Answer, Refusal> {
        if self.paused_at.is_some() {
            return Ok(Answer::Done);
        }
        for processor in &self.processors {
            processor.pause();
        }
        self.paused_at = Some(self.vm.clock()?);
        if let Err(refusal) = self.devices.pause() {
            self.resume()?;
            return Err(refusal);
        }
        Ok(Answer::Done)
    }

    pub(super) fn resume(&mut self) -> Result<Answer, Refusal> {
        self.go_on()?;
        Ok(Answer::Done)
    }

    pub(super) fn go_on(&mut self) -> Result<(), MachineError> {
        let Some(clock) = self.paused_at else {
            return Ok(());
        };
        self.vm.set_clock(clock)?;
        self.paused_at = None;
        self.devices.resume();
        for processor in &self.processors {
            processor.tell_paused();
        }
        for processor in &self.processors {
            processor.resume();
        }
        Ok(())
    }

    fn add(
        &mut self,
        described: DeviceDescription,
        mut device: FrontEnd,
    ) -> Result<Answer, Refusal> {
        if let Some(id) = described.id.as_ref().filter(|id| self.devices.has(id)) {
            return Err(Refusal::SameId(id.clone()));
        }
        let kind = device.kind();
        if kind == Kind::Vsock && self.devices.has_kind(kind) {
            return Err(Refusal::SecondVsock);
        }
        if self.paused_at.is_some() {
            device.pause();
        }
        let named = described.named(|id| self.devices.has(id));
        let id = named.id.clone();
        self.devices.add(named, device);
        let slot = self.devices.plug_last(self.platform.pci(), &self.vm)?;
        self.platform.came(slot);
        tracing::info!(device = id, slot, "a device was plugged in");
        let added = self.devices.get_mut(&id)?;
        Ok(Answer::Added(added.info()))
    }

    fn ask_to_eject(&mut self, id: &str) -> Result<Answer, Refusal> {
        let attached = self.devices.get_mut(id)?;
        attached.leaving = true;
        if let Some(slot) = attached.slot {
            self.platform.shall_go(slot);
        }
        Ok(Answer::Begun)
    }

    pub(super) fn ejected(&mut self, slot: usize) {
        if let Some(device) = self.devices.remove(slot) {
            tracing::info!(device, slot, "the guest let go of a device");
        }
    }
}

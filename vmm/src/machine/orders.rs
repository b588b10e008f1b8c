//! What somebody outside may want of a machine, and how it is carried out.

use super::{
    BalloonInfo, CopiedInfo, DeviceInfo, Ended, Info, Machine, MachineError, MemoryInfo, Refusal,
    SnapshotOrder, State,
};
use crate::kvm::VcpuThread;
use crate::memory::ByteSize;
use crate::options::DeviceDescription;
use crate::vhost_user::FrontEnd;
use crate::virtio::{Device as _, Kind};

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
    Snapshot(SnapshotOrder),
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
    /// How it was copied.
    Copied(CopiedInfo),
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
            Command::Snapshot(order) => self.snapshot(&order),
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
        match self.vm.clock() {
            Ok(clock) => self.paused_at = Some(clock),
            Err(error) => {
                self.processors.iter().for_each(VcpuThread::resume);
                return Err(error.into());
            }
        }
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

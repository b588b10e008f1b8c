//! A machine from its parts, and its life: on, paused, off, reset.

mod devices;
mod events;
mod info;
mod late;
mod live;
mod metrics;
mod orders;
mod platform;
mod refusal;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;

use thiserror::Error;

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootConfig, BootError};
use crate::console::Console;
use crate::devices::{Power, PowerEvent, SerialPort};
use crate::kvm::{Beginning, HostKvm, KvmError, Probe, Stopped, VcpuThread, Vm};
use crate::layout;
use crate::memory::{GuestMemory, MemoryError};
use crate::options::Description;
use crate::pci::{HostBridge, PciBus};
use crate::snapshot::MachineState;
use crate::virtio::{SaveError, TransportError};
use events::Event;
use orders::Outcome;
use platform::Platform;

pub use devices::{DeviceInfo, DeviceSet};
pub use events::{Controller, Events, QuitHandle};
pub use info::{BalloonInfo, Info, MemoryInfo, State};
pub use live::CopiedInfo;
pub use orders::{Answer, Command};
pub use refusal::Refusal;
pub use snapshot::SnapshotOrder;

/// What a machine is made of, besides its devices.
#[derive(Debug)]
pub struct MachineConfig {
    /// As it was described, for a snapshot.
    pub description: Description,
    /// Processors, at least one.
    pub processors: u8,
    /// What it boots.
    pub boot: BootConfig,
    /// Whether to look first if the host's KVM is any good.
    pub probe: Probe,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest switched itself off.
    Off,
    /// The guest wants to start again.
    Reset,
    /// Somebody outside wants it to start again.
    Restart,
    /// Somebody outside ended it.
    Quit,
}

/// Why there is no machine, or no more.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Kernel, initramfs, command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No descriptor for an interrupt.
    #[error("no event descriptor for an interrupt")]
    Interrupt(#[source] std::io::Error),
    /// A device does not fit on the bus.
    #[error(transparent)]
    Device(#[from] TransportError),
    /// A daemon that does not complete what it began for the guest before.
    #[error("the daemon of {0} does not stop, and may still write into the guest's memory")]
    Busy(String),
    /// More devices than places.
    #[error("the PCI bus has 31 places for devices, and there are more devices")]
    Places,
    /// The snapshot and the devices do not fit together.
    #[error("the device {0} is in the snapshot or in the machine, and not in both")]
    NotInSnapshot(String),
    /// A daemon that serves another device now.
    #[error("{0} is not the device that is in the snapshot")]
    OtherDevice(String),
    /// A daemon that does not take what it knew.
    #[error("{id}")]
    Saved {
        /// The device.
        id: String,
        /// Why.
        source: SaveError,
    },
    /// The serial port's registers.
    #[error("the serial port cannot be restored")]
    Serial(#[source] std::io::Error),
    /// A processor cannot go on.
    #[error("processor {processor} stopped at {stopped}")]
    Stopped {
        /// Which one.
        processor: u8,
        /// Why.
        stopped: Stopped,
    },
}

/// A machine that is ready to run.
pub struct Machine<'a> {
    config: &'a MachineConfig,
    events: &'a Events,
    processors: Vec<VcpuThread>,
    devices: &'a mut DeviceSet,
    platform: Arc<Platform>,
    vm: Arc<Vm>,
    /// Paused, and the guest's clock at that time.
    paused_at: Option<u64>,
    /// Events that came while an order was carried out.
    later: VecDeque<Event>,
}

impl<'a> Machine<'a> {
    /// Makes the machine. It boots from `memory`, which must be zero, and in which the kernel is put; or
    /// goes on as it was in the snapshot from `memory`, which was loaded, and is paused. The devices must
    /// be reset; they stay with their daemons when the machine ends.
    ///
    /// # Errors
    /// When a part cannot be had.
    pub fn new(
        config: &'a MachineConfig,
        kvm: &HostKvm,
        memory: &GuestMemory,
        console: &Console,
        events: &'a Events,
        devices: &'a mut DeviceSet,
        snapshot: Option<&MachineState>,
    ) -> Result<Self, MachineError> {
        let vm = Vm::new(kvm, memory, config.processors)?;
        let platform = platform(&vm, console, events)?;
        let beginning = match snapshot {
            None => {
                devices.plug_all(platform.pci(), &vm)?;
                let entry = boot::load(&config.boot, memory)?;
                acpi::write(memory, config.processors)?;
                Beginning::Boot(entry)
            }
            Some(state) => {
                devices.plug_restored(platform.pci(), &vm, &state.devices)?;
                Beginning::Restored(&state.processors)
            }
        };
        let sender = events.sender.clone();
        let processors = vm.start_processors(
            config.processors,
            &beginning,
            config.probe,
            &(platform.clone() as _),
            &(Arc::new(move |report| drop(sender.send(Event::Stopped(report)))) as _),
        )?;
        if let Some(state) = snapshot {
            vm.restore_chips(&state.chips)?;
            platform
                .restore(&state.platform)
                .map_err(MachineError::Serial)?;
        }
        Ok(Self {
            config,
            events,
            processors,
            devices,
            platform,
            vm,
            paused_at: snapshot.map(|state| state.clock),
            later: VecDeque::new(),
        })
    }

    /// Runs the guest until it ends, or is ended; from [`Command::Resume`] on if it is to begin paused.
    ///
    /// # Errors
    /// When a processor cannot go on.
    pub fn run(mut self, begin: State) -> Result<Ended, MachineError> {
        let ended = self.begin(begin).and_then(|()| self.obey_until_the_end());
        for processor in self.processors {
            processor.stop();
        }
        self.devices.stop();
        self.events.forget_guest(self.later);
        ended
    }

    /// Processors are paused before their first instruction.
    fn begin(&mut self, begin: State) -> Result<(), MachineError> {
        if self.paused_at.is_none() {
            self.paused_at = Some(self.vm.clock()?);
            // Nothing was started: they are paused at once.
            self.devices.pause_all();
        }
        if begin == State::Running {
            self.go_on()?;
        }
        Ok(())
    }

    fn obey_until_the_end(&mut self) -> Result<Ended, MachineError> {
        loop {
            let earlier = self.later.pop_front().map(Ok);
            match earlier.unwrap_or_else(|| self.events.receiver.recv()) {
                Ok(Event::Power(PowerEvent::Off)) => return Ok(Ended::Off),
                Ok(Event::Power(PowerEvent::Reset)) => return Ok(Ended::Reset),
                Ok(Event::Quit) | Err(_) => return Ok(Ended::Quit),
                Ok(Event::Stopped(report)) => {
                    return Err(MachineError::Stopped {
                        processor: report.processor,
                        stopped: report.stopped,
                    });
                }
                Ok(Event::Ejected(slot)) => self.ejected(slot),
                Ok(Event::Order(command, reply)) => match self.carry_out(command) {
                    // Who asked may have gone.
                    Outcome::Answer(answer) => drop(reply.send(answer)),
                    Outcome::End(ended) => {
                        let _ = reply.send(Ok(Answer::Begun));
                        return Ok(ended);
                    }
                },
            }
        }
    }
}

/// Everything but the PCI devices.
fn platform(
    vm: &Arc<Vm>,
    console: &Console,
    events: &Events,
) -> Result<Arc<Platform>, MachineError> {
    let (serial, line) = SerialPort::new(console.output()).map_err(MachineError::Interrupt)?;
    let power = Power::new().map_err(MachineError::Interrupt)?;
    vm.connect_interrupt(&line, layout::SERIAL_IRQ)?;
    vm.connect_interrupt(power.interrupt(), layout::ACPI_EVENT_IRQ)?;
    let serial = Arc::new(serial);
    console.attach(&serial);
    let pci = PciBus::default();
    // The bus is empty, so there is room.
    let _ = pci.plug_at(0, HostBridge::default());
    let platform = Platform::new(serial, power, pci, events.sender.clone());
    Ok(Arc::new(platform))
}

//! A machine from its parts, and its life: on, paused, off, reset.

mod devices;
mod events;
mod metrics;
mod orders;
mod platform;

use std::sync::Arc;

use thiserror::Error;

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootConfig, BootError};
use crate::console::Console;
use crate::devices::{Power, PowerEvent, SerialPort};
use crate::kvm::{KvmError, Probe, Stopped, VcpuThread, Vm};
use crate::layout;
use crate::memory::{GuestMemory, MemoryError};
use crate::pci::{HostBridge, PciBus};
use crate::virtio::TransportError;
use events::Event;
use orders::Outcome;
use platform::Platform;

pub use devices::{DeviceInfo, DeviceSet};
pub use events::{Controller, Events, QuitHandle};
pub use orders::{Answer, Command, Info, Refusal, State};

/// What a machine is made of, besides its devices.
#[derive(Debug)]
pub struct MachineConfig {
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
    /// More devices than places.
    #[error("the PCI bus has 31 places for devices, and there are more devices")]
    Places,
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
    events: &'a Events,
    processors: Vec<VcpuThread>,
    devices: &'a mut DeviceSet,
    platform: Arc<Platform>,
    vm: Arc<Vm>,
    /// Paused, and the guest's clock at that time.
    paused_at: Option<u64>,
}

impl<'a> Machine<'a> {
    /// Loads the kernel into `memory`, which must be zero, and makes the machine. The devices must be
    /// reset; they stay with their daemons when the machine ends.
    ///
    /// # Errors
    /// When a part cannot be had.
    pub fn new(
        config: &MachineConfig,
        memory: &GuestMemory,
        console: &Console,
        events: &'a Events,
        devices: &'a mut DeviceSet,
    ) -> Result<Self, MachineError> {
        let vm = Vm::new(memory, config.processors)?;
        let (serial, line) = SerialPort::new(console.output()).map_err(MachineError::Interrupt)?;
        let power = Power::new().map_err(MachineError::Interrupt)?;
        vm.connect_interrupt(&line, layout::SERIAL_IRQ)?;
        vm.connect_interrupt(power.interrupt(), layout::ACPI_EVENT_IRQ)?;
        let serial = Arc::new(serial);
        console.attach(&serial);
        let pci = PciBus::default();
        pci.plug_at(0, HostBridge::default());
        devices.plug_all(&pci, &vm)?;
        let platform = Arc::new(Platform::new(serial, power, pci, events.sender.clone()));

        let entry = boot::load(&config.boot, memory)?;
        acpi::write(memory, config.processors)?;
        let sender = events.sender.clone();
        let processors = vm.start_processors(
            config.processors,
            entry,
            config.probe,
            &(platform.clone() as _),
            &(Arc::new(move |report| drop(sender.send(Event::Stopped(report)))) as _),
        )?;
        Ok(Self {
            events,
            processors,
            devices,
            platform,
            vm,
            paused_at: None,
        })
    }

    /// Runs the guest until it ends, or is ended.
    ///
    /// # Errors
    /// When a processor cannot go on.
    pub fn run(mut self) -> Result<Ended, MachineError> {
        for processor in &self.processors {
            processor.resume();
        }
        let ended = self.obey_until_the_end();
        for processor in self.processors {
            processor.stop();
        }
        self.devices.stop();
        ended
    }

    fn obey_until_the_end(&mut self) -> Result<Ended, MachineError> {
        loop {
            match self.events.receiver.recv() {
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

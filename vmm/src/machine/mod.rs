//! A machine from its parts, and its life: on, off, reset.

mod platform;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use thiserror::Error;

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootConfig, BootError};
use crate::console::Console;
use crate::devices::{Power, PowerEvent, SerialPort};
use crate::kvm::{KvmError, Probe, Report, Stopped, VcpuThread, Vm};
use crate::layout;
use crate::memory::{GuestMemory, MemoryError};
use crate::pci::{HostBridge, PciBus};
use platform::Platform;

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
    /// A processor cannot go on.
    #[error("processor {processor} stopped at {stopped}")]
    Stopped {
        /// Which one.
        processor: u8,
        /// Why.
        stopped: Stopped,
    },
}

/// What ends a machine.
#[derive(Debug)]
enum Event {
    Power(PowerEvent),
    Stopped(Report),
    Quit,
}

/// Ends a machine from outside, from any thread.
#[derive(Debug, Clone)]
pub struct QuitHandle(Sender<Event>);

impl QuitHandle {
    /// The machine ends as if its plug was pulled.
    pub fn quit(&self) {
        // It has ended already when nobody listens.
        let _ = self.0.send(Event::Quit);
    }
}

/// Where events arrive. It outlives resets.
#[derive(Debug)]
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }
}

impl Events {
    /// A way to end the machine.
    #[must_use]
    pub fn quit_handle(&self) -> QuitHandle {
        QuitHandle(self.sender.clone())
    }
}

/// A machine that is ready to run.
#[derive(Debug)]
pub struct Machine<'a> {
    events: &'a Events,
    processors: Vec<VcpuThread>,
    _platform: Arc<Platform>,
    _vm: Arc<Vm>,
}

impl<'a> Machine<'a> {
    /// Loads the kernel into `memory`, which must be zero, and makes the machine.
    ///
    /// # Errors
    /// When a part cannot be had.
    pub fn new(
        config: &MachineConfig,
        memory: &GuestMemory,
        console: &Console,
        events: &'a Events,
    ) -> Result<Self, MachineError> {
        let vm = Vm::new(memory, config.processors)?;
        let (serial, line) = SerialPort::new(console.output()).map_err(MachineError::Interrupt)?;
        let power = Power::new().map_err(MachineError::Interrupt)?;
        vm.connect_interrupt(&line, layout::SERIAL_IRQ)?;
        vm.connect_interrupt(power.interrupt(), layout::ACPI_EVENT_IRQ)?;
        let serial = Arc::new(serial);
        console.attach(&serial);
        let pci = PciBus::default();
        pci.plug(HostBridge::default());
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
            _platform: platform,
            _vm: vm,
        })
    }

    /// Runs the guest until it ends, or is ended.
    ///
    /// # Errors
    /// When a processor cannot go on.
    pub fn run(self) -> Result<Ended, MachineError> {
        for processor in &self.processors {
            processor.resume();
        }
        let event = self.events.receiver.recv();
        for processor in self.processors {
            processor.stop();
        }
        match event {
            Ok(Event::Power(PowerEvent::Off)) => Ok(Ended::Off),
            Ok(Event::Power(PowerEvent::Reset)) => Ok(Ended::Reset),
            Ok(Event::Quit) | Err(_) => Ok(Ended::Quit),
            Ok(Event::Stopped(report)) => Err(MachineError::Stopped {
                processor: report.processor,
                stopped: report.stopped,
            }),
        }
    }
}

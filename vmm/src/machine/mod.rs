//! A machine from its parts, and its life: on, off, reset.

mod platform;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootConfig, BootError};
use crate::console::Console;
use crate::devices::{Power, PowerEvent, SerialPort};
use crate::kvm::{KvmError, Probe, Report, Stopped, VcpuThread, Vm};
use crate::layout;
use crate::memory::{GuestMemory, MemoryError};
use crate::pci::{HostBridge, PciBus};
use crate::virtio::{Device, SharedDevice, Transport, TransportError};
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
pub struct Machine<'a> {
    events: &'a Events,
    processors: Vec<VcpuThread>,
    devices: &'a [SharedDevice],
    _platform: Arc<Platform>,
    _vm: Arc<Vm>,
}

/// How long a device has to stop when the machine ends.
const STOPPING: Duration = Duration::from_secs(5);
const STOPPING_POLL: Duration = Duration::from_millis(1);
/// Bytes between devices' base addresses.
const BAR_DISTANCE: u64 = 0x10_0000;

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
        devices: &'a [SharedDevice],
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
        plug(&pci, &vm, devices)?;
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
        stop_devices(self.devices);
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

fn plug(pci: &PciBus, vm: &Arc<Vm>, devices: &[SharedDevice]) -> Result<(), MachineError> {
    let mut interrupts = layout::FIRST_MESSAGE_GSI..;
    for (device, place) in devices.iter().zip(0..) {
        let address = u32::try_from(layout::PCI_WINDOW + place * BAR_DISTANCE)
            .map_err(|_| MachineError::Places)?;
        let queues = lock(device).queue_sizes().len();
        let numbers: Vec<u32> = interrupts.by_ref().take(queues + 1).collect();
        let transport = Transport::new(device.clone(), vm.clone(), address, &numbers)?;
        pci.plug(transport).ok_or(MachineError::Places)?;
    }
    Ok(())
}

/// Afterwards no daemon touches the guest's memory; one that does not answer is told in the log.
fn stop_devices(devices: &[SharedDevice]) {
    for device in devices {
        lock(device).reset();
    }
    let give_up = Instant::now() + STOPPING;
    for device in devices {
        while !lock(device).is_reset() {
            if Instant::now() >= give_up {
                let kind = lock(device).kind();
                tracing::warn!(?kind, "a device's daemon does not stop");
                break;
            }
            std::thread::sleep(STOPPING_POLL);
        }
    }
}

fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn Device + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The machine's devices: names, places on the bus, and how each is. They outlive resets.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::late::LateDevices;
use super::{MachineError, Refusal};
use crate::kvm::Vm;
use crate::layout;
use crate::options::NamedDevice;
use crate::pci::PciBus;
use crate::snapshot::DeviceState;
use crate::virtio::{Accesses, Balloon, Device, Kind, SharedDevice, Transport, TransportState};

/// How long a device has to stop when the machine ends or is paused, or the device is removed.
const STOPPING: Duration = Duration::from_secs(5);
const STOPPING_POLL: Duration = Duration::from_millis(1);
/// Bytes between devices' base addresses.
const BAR_DISTANCE: u64 = 0x10_0000;

/// A device, and where it is plugged in.
pub(super) struct Attached {
    pub(super) id: String,
    pub(super) device: SharedDevice,
    /// What it is, unless it is in this process.
    pub(super) named: Option<NamedDevice>,
    /// Its function on the present machine's bus.
    pub(super) transport: Option<Arc<Mutex<Transport>>>,
    /// Its place on the bus, once it had one. It keeps it over resets.
    pub(super) slot: Option<usize>,
    interrupts: Vec<u32>,
    /// The guest was asked to let go of it.
    pub(super) leaving: bool,
    pub(super) accesses: Arc<Accesses>,
}

/// All of them, in the order in which they came.
#[derive(Default)]
pub struct DeviceSet {
    attached: Vec<Attached>,
    balloon: Option<Arc<Balloon>>,
    late: LateDevices,
}

/// A device, for whoever watches the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceInfo {
    /// Its name.
    pub id: String,
    /// disk, net, fs, vsock, rng, ...
    pub kind: &'static str,
    /// Its place on PCI bus 0.
    pub slot: Option<usize>,
    /// Where its daemon listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Its daemon is there.
    pub connected: bool,
    /// The guest's driver has started it.
    pub started: bool,
    /// How often its daemon was lost.
    pub losses: u64,
    /// The guest was asked to let go of it.
    pub leaving: bool,
}

impl DeviceSet {
    /// Adds a device of a daemon; it is plugged in when a machine is made of the set.
    pub fn add(&mut self, named: NamedDevice, device: impl Device + 'static) {
        let device = Arc::new(Mutex::new(device));
        self.push(named.id.clone(), Some(named), device);
    }

    /// Adds a device that is in this process. It has its kind's name.
    pub fn add_own(&mut self, device: SharedDevice) {
        let id = lock(&device).kind().word().to_owned();
        self.push(id, None, device);
    }

    /// Adds a balloon.
    pub fn add_balloon(&mut self, balloon: Arc<Balloon>) {
        self.add_own(Arc::new(Mutex::new(balloon.device())));
        self.balloon = Some(balloon);
    }

    pub(super) fn balloon(&self) -> Option<&Arc<Balloon>> {
        self.balloon.as_ref()
    }

    fn push(&mut self, id: String, named: Option<NamedDevice>, device: SharedDevice) {
        self.attached.push(Attached {
            id,
            device,
            named,
            transport: None,
            slot: None,
            interrupts: Vec::new(),
            leaving: false,
            accesses: Arc::default(),
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Attached> {
        self.attached.iter()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.attached.iter().any(|it| it.id == id)
    }

    pub(super) fn has_kind(&self, kind: Kind) -> bool {
        self.attached
            .iter()
            .any(|it| lock(&it.device).kind() == kind)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Result<&mut Attached, Refusal> {
        let found = self.find(id);
        found.ok_or_else(|| Refusal::NoDevice(id.to_owned()))
    }

    pub(super) fn find(&mut self, id: &str) -> Option<&mut Attached> {
        self.attached.iter_mut().find(|it| it.id == id)
    }

    pub(super) fn infos(&self) -> Vec<DeviceInfo> {
        self.attached.iter().map(Attached::info).collect()
    }

    /// Waits for the devices of the machine before. One that still stops what it did for it may write into the memory
    /// of both, also one that the guest had let go of.
    pub(super) fn wait_for_all(&self) -> Result<(), MachineError> {
        let stays = |it: &&Attached| !wait_until_reset(&it.device);
        let attached = self.attached.iter().find(stays).map(|it| it.id.as_str());
        match attached.or_else(|| self.late.still_busy()) {
            Some(id) => Err(MachineError::Busy(id.to_owned())),
            None => Ok(()),
        }
    }

    /// Puts every device on the bus of a new machine. Those that were leaving are gone.
    pub(super) fn plug_all(&mut self, bus: &PciBus, vm: &Arc<Vm>) -> Result<(), MachineError> {
        self.wait_for_all()?;
        self.attached.retain(|it| !it.leaving);
        for place in 0..self.attached.len() {
            self.plug(place, bus, vm, None)?;
        }
        Ok(())
    }

    /// Puts every device on the bus where it was, as it was. They are paused afterwards.
    pub(super) fn plug_restored(
        &mut self,
        bus: &PciBus,
        vm: &Arc<Vm>,
        states: &[DeviceState],
    ) -> Result<(), MachineError> {
        self.pause_all();
        self.restore(states)?;
        for place in 0..self.attached.len() {
            let id = &self.attached[place].id;
            let state = states.iter().find(|state| state.id == *id);
            let state = state.ok_or_else(|| MachineError::NotInSnapshot(id.clone()))?;
            self.plug(place, bus, vm, Some(&state.transport))?;
        }
        Ok(())
    }

    /// Puts the device that was added last on the bus: its place there.
    pub(super) fn plug_last(&mut self, bus: &PciBus, vm: &Arc<Vm>) -> Result<usize, MachineError> {
        let plugged = self.plug(self.attached.len().saturating_sub(1), bus, vm, None);
        if plugged.is_err() {
            self.attached.pop();
        }
        plugged
    }

    fn plug(
        &mut self,
        index: usize,
        bus: &PciBus,
        vm: &Arc<Vm>,
        state: Option<&TransportState>,
    ) -> Result<usize, MachineError> {
        let reserved: Vec<usize> = self.attached.iter().filter_map(|it| it.slot).collect();
        let attached = self.attached.get(index).ok_or(MachineError::Places)?;
        let free = || bus.free_place(&reserved);
        let slot = attached.slot.or_else(free).ok_or(MachineError::Places)?;
        let vectors = lock(&attached.device).queue_sizes().len() + 1;
        let numbers = if attached.interrupts.is_empty() {
            self.free_interrupts(vectors)
        } else {
            attached.interrupts.clone()
        };
        let attached = &mut self.attached[index];
        let address = base_address(slot).ok_or(MachineError::Places)?;
        let mut transport = Transport::new(attached.device.clone(), vm.clone(), address, &numbers)?;
        if state.is_some_and(|state| !transport.restore(state)) {
            return Err(MachineError::OtherDevice(attached.id.clone()));
        }
        attached.accesses = transport.accesses();
        let transport = Arc::new(Mutex::new(transport));
        bus.plug_shared(slot, transport.clone())
            .ok_or(MachineError::Places)?;
        attached.transport = Some(transport);
        (attached.slot, attached.interrupts) = (Some(slot), numbers);
        Ok(slot)
    }

    /// The lowest interrupt numbers that no device has; fewer than wanted where there are no more.
    fn free_interrupts(&self, wanted: usize) -> Vec<u32> {
        let taken = |number: &u32| {
            self.attached
                .iter()
                .any(|it| it.interrupts.contains(number))
        };
        (layout::FIRST_MESSAGE_GSI..layout::MESSAGE_GSI_END)
            .filter(|number| !taken(number))
            .take(wanted)
            .collect()
    }

    /// The guest has let go of the device in this place: it ends, and its daemon's connection with it; one that does
    /// not end in time is [late](LateDevices).
    pub(super) fn remove(&mut self, slot: usize) -> Option<String> {
        let index = self.attached.iter().position(|it| it.slot == Some(slot))?;
        let mut gone = self.attached.remove(index);
        gone.transport = None;
        if lock(&gone.device).kind() == Kind::Balloon {
            self.balloon = None;
        }
        lock(&gone.device).reset();
        let device = &gone.device;
        // A processor may be in the function that was on the bus, for a moment.
        wait_for(device, |it| it.is_reset() && Arc::strong_count(device) == 1);
        if !lock(&gone.device).is_reset() {
            self.late.push(gone.id.clone(), gone.device);
        }
        Some(gone.id)
    }

    /// Afterwards no daemon touches the guest's memory; one that does not answer is told in the log, and
    /// [keeps](Self::wait_for_all) another machine from beginning.
    pub(super) fn stop(&mut self) {
        for attached in &self.attached {
            lock(&attached.device).reset();
        }
        for attached in &mut self.attached {
            attached.transport = None;
            wait_until_reset(&attached.device);
            // For the next machine, if this one was paused.
            lock(&attached.device).resume();
        }
    }

    pub(super) fn pause_all(&self) {
        for attached in &self.attached {
            lock(&attached.device).pause();
        }
    }

    /// Afterwards no daemon touches the guest's memory until [`resume`](Self::resume).
    pub(super) fn pause(&self) -> Result<(), Refusal> {
        self.pause_all();
        let stays = |it: &&Attached| !wait_for(&it.device, |device| device.is_paused());
        let attached = self.attached.iter().find(stays).map(|it| it.id.as_str());
        match attached.or_else(|| self.late.still_busy()) {
            Some(id) => Err(Refusal::Busy(id.to_owned())),
            None => Ok(()),
        }
    }

    pub(super) fn resume(&self) {
        for attached in &self.attached {
            lock(&attached.device).resume();
        }
    }
}

impl std::fmt::Debug for DeviceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.infos()).finish()
    }
}

impl Attached {
    pub(super) fn info(&self) -> DeviceInfo {
        let device = lock(&self.device);
        let condition = device.condition();
        DeviceInfo {
            id: self.id.clone(),
            kind: device.kind().word(),
            slot: self.slot,
            socket: self
                .named
                .as_ref()
                .map(|it| it.front_end.socket.display().to_string()),
            connected: condition.connected,
            started: condition.started,
            losses: condition.losses,
            leaving: self.leaving,
        }
    }

    pub(super) fn counted(&self) -> (u64, u64) {
        let accesses = self.accesses.accesses.load(Ordering::Relaxed);
        (accesses, self.accesses.kicks.load(Ordering::Relaxed))
    }
}

/// Place 0 is the host bridge's, which has no base address.
fn base_address(slot: usize) -> Option<u32> {
    let index = u64::try_from(slot.checked_sub(1)?).ok()?;
    u32::try_from(layout::PCI_WINDOW + index * BAR_DISTANCE).ok()
}

/// Whether it had stopped in time: then nothing touches the guest's memory for it.
pub(super) fn wait_until_reset(device: &SharedDevice) -> bool {
    wait_for(device, |it| it.is_reset())
}

fn wait_for(device: &SharedDevice, done: impl Fn(&dyn Device) -> bool) -> bool {
    let give_up = Instant::now() + STOPPING;
    loop {
        if done(&*lock(device)) {
            return true;
        }
        if Instant::now() >= give_up {
            let kind = lock(device).kind();
            tracing::warn!(?kind, "a device's daemon does not stop");
            return false;
        }
        std::thread::sleep(STOPPING_POLL);
    }
}

pub(super) fn lock<T: ?Sized>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A virtio device on a PCI bus, without a hypervisor: what is connected is remembered, as strictly as KVM does.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use vmm::kvm::{KvmError, Message};
use vmm::pci::Wiring;
use vmm::virtio::{Condition, Device, Kind, SaveError, Saved, Setup, Signals, Transport};
use vmm_sys_util::eventfd::EventFd;

/// Where the device is first.
pub(crate) const ADDRESS: u32 = 0xc000_0000;
const FIRST_INTERRUPT: u32 = 24;

/// What would be connected in a kernel.
#[derive(Debug, Default)]
pub(crate) struct Connected {
    routes: Mutex<BTreeMap<u32, Message>>,
    interrupts: Mutex<BTreeMap<u32, i32>>,
    kicks: Mutex<BTreeMap<u64, i32>>,
}

impl Connected {
    /// Nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.interrupts.lock().unwrap().is_empty() && self.kicks.lock().unwrap().is_empty()
    }
}

const REFUSED: KvmError = KvmError::Missing("such a connection");

impl Wiring for Connected {
    fn route_message(&self, number: u32, message: Option<Message>) -> Result<(), KvmError> {
        let mut routes = self.routes.lock().unwrap();
        match message {
            Some(message) => routes.insert(number, message),
            None => routes.remove(&number),
        };
        Ok(())
    }

    fn connect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError> {
        let mut interrupts = self.interrupts.lock().unwrap();
        assert!(!interrupts.contains_key(&number), "connected twice");
        interrupts.insert(number, event.as_raw_fd());
        Ok(())
    }

    fn disconnect_interrupt(&self, _: &EventFd, number: u32) -> Result<(), KvmError> {
        let removed = self.interrupts.lock().unwrap().remove(&number);
        removed.map(drop).ok_or(REFUSED)
    }

    fn connect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        let mut kicks = self.kicks.lock().unwrap();
        if kicks.contains_key(&address) {
            return Err(REFUSED);
        }
        kicks.insert(address, event.as_raw_fd());
        Ok(())
    }

    fn disconnect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        let mut kicks = self.kicks.lock().unwrap();
        if kicks.get(&address) != Some(&event.as_raw_fd()) {
            return Err(REFUSED);
        }
        kicks.remove(&address);
        Ok(())
    }
}

/// A device that does as it is told.
#[derive(Default)]
struct Obedient {
    started: bool,
}

impl Device for Obedient {
    fn kind(&self) -> Kind {
        Kind::Block
    }
    fn features(&self) -> u64 {
        1 << 32 | 1 << 29 | 1 << 9
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![256, 128]
    }
    fn attach(&mut self, _: Arc<Signals>) {}
    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3, 4, 5]
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        assert!(!data.is_empty() && offset < 0x1000);
    }
    fn start(&mut self, setup: Setup) {
        assert!(!self.started, "started twice");
        for queue in &setup.queues {
            assert!(queue.index < 2 && queue.size.is_power_of_two() && queue.size <= 256);
        }
        self.started = true;
    }
    fn set_call(&mut self, queue: usize, _: EventFd) {
        assert!(queue < 2);
    }
    fn reset(&mut self) {
        self.started = false;
    }
    fn is_reset(&self) -> bool {
        true
    }
    fn pause(&mut self) {}
    fn is_paused(&self) -> bool {
        true
    }
    fn resume(&mut self) {}
    fn condition(&self) -> Condition {
        Condition::default()
    }
    fn save(&mut self) -> Receiver<Result<Saved, SaveError>> {
        channel().1
    }
    fn load(&mut self, _: u64, _: Vec<u8>) -> Receiver<Result<(), SaveError>> {
        channel().1
    }
    fn follow_log(&mut self) -> Receiver<Result<(), SaveError>> {
        channel().1
    }
}

/// A function of a new device, and what it connects.
pub(crate) fn function() -> (Transport, Arc<Connected>) {
    let connected = Arc::new(Connected::default());
    let device = Arc::new(Mutex::new(Obedient::default()));
    let numbers: Vec<u32> = (FIRST_INTERRUPT..FIRST_INTERRUPT + 3).collect();
    let function = Transport::new(device, connected.clone(), ADDRESS, &numbers).unwrap();
    (function, connected)
}

//! A block driver of a few lines: one request is one chain of three descriptors.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::LIMIT;
use crate::memory::GuestMemory;
use crate::pci::Function;
use crate::vhost_user::FrontEnd;
use crate::virtio::{Device, QueueSetup, Setup, Transport};

pub(super) const SECTOR: u64 = 512;
const ENTRIES: u16 = 128;
const DESCRIPTORS: u64 = 0x10_0000;
const AVAILABLE: u64 = 0x11_0000;
const USED: u64 = 0x12_0000;
/// Headers and status bytes; data above the hole.
const REQUESTS: u64 = 0x20_0000;
const DATA: u64 = 1 << 32;
const SLOT: u64 = 0x2000;

const VERSION_1: u64 = 1 << 32;
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
const READ: u32 = 0;
const WRITE: u32 = 1;

pub(super) struct Disk {
    pub(super) device: FrontEnd,
    memory: GuestMemoryMmap,
    kick: EventFd,
    call: EventFd,
    submitted: u16,
    seen: u16,
    /// Slots that the device has.
    busy: BTreeMap<u16, ()>,
}

impl Disk {
    pub(super) fn new(device: FrontEnd, memory: &GuestMemory) -> Self {
        Self {
            device,
            memory: memory.mapped().clone(),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            submitted: 0,
            seen: 0,
            busy: BTreeMap::new(),
        }
    }

    pub(super) fn start(&mut self) {
        (self.submitted, self.seen) = (0, 0);
        for ring in [AVAILABLE, USED] {
            let empty = [0; 4 + 8 * ENTRIES as usize];
            self.memory.write_slice(&empty, GuestAddress(ring)).unwrap();
        }
        self.device.start(Setup {
            features: VERSION_1,
            queues: vec![QueueSetup {
                index: 0,
                size: ENTRIES,
                descriptors: DESCRIPTORS,
                available: AVAILABLE,
                used: USED,
                kick: self.kick.try_clone().unwrap(),
                call: self.call.try_clone().unwrap(),
                position: 0,
            }],
        });
    }

    pub(super) fn write(&mut self, sector: u64, data: &[u8]) {
        self.submit_write(sector, data);
        self.finish_all();
    }

    pub(super) fn read(&mut self, sector: u64, len: usize) -> Vec<u8> {
        let slot = self.submit(READ, sector, len);
        self.finish_all();
        self.data(slot, len)
    }

    fn data(&self, slot: u16, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, data_at(slot)).unwrap();
        data
    }

    pub(super) fn submit_write(&mut self, sector: u64, data: &[u8]) {
        let slot = self.free_slot();
        self.memory.write_slice(data, data_at(slot)).unwrap();
        self.submit(WRITE, sector, data.len());
    }

    /// Waits until every request has come back once, and well.
    pub(super) fn finish_all(&mut self) {
        let give_up = Instant::now() + LIMIT;
        while !self.busy.is_empty() {
            assert!(Instant::now() < give_up, "{:?} are not done", self.busy);
            if self.call.read().is_err() {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            self.take_used();
        }
    }

    fn take_used(&mut self) {
        let index = GuestAddress(USED + 2);
        let used: u16 = self.memory.load(index, Ordering::Acquire).unwrap();
        while self.seen != used {
            let at = USED + 4 + 8 * u64::from(self.seen % ENTRIES);
            let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
            let slot = u16::try_from(head / 3).unwrap();
            let status: u8 = self.memory.read_obj(status_at(slot)).unwrap();
            assert_eq!(status, 0, "request {slot}");
            let was_busy = self.busy.remove(&slot).is_some();
            assert!(was_busy, "request {slot} came back twice");
            self.seen = self.seen.wrapping_add(1);
        }
    }

    fn free_slot(&self) -> u16 {
        (0..ENTRIES / 3)
            .find(|it| !self.busy.contains_key(it))
            .unwrap_or_else(|| panic!("all requests are under way"))
    }

    fn submit(&mut self, kind: u32, sector: u64, len: usize) -> u16 {
        if self.busy.len() == usize::from(ENTRIES / 3) {
            self.finish_all();
        }
        let slot = self.free_slot();
        let header = header_at(slot);
        self.memory.write_obj(kind, header).unwrap();
        let place = GuestAddress(header.0 + 8);
        self.memory.write_obj(sector, place).unwrap();
        self.memory.write_obj(0xff_u8, status_at(slot)).unwrap();
        let to_guest = if kind == READ { WRITABLE } else { 0 };
        let head = slot * 3;
        let len = u32::try_from(len).unwrap();
        self.descriptor(head, header, 16, NEXT);
        self.descriptor(head + 1, data_at(slot), len, NEXT | to_guest);
        self.descriptor(head + 2, status_at(slot), 1, WRITABLE);
        self.publish(head);
        self.busy.insert(slot, ());
        slot
    }

    fn descriptor(&self, index: u16, address: GuestAddress, len: u32, flags: u16) {
        let at = GuestAddress(DESCRIPTORS + 16 * u64::from(index));
        let low = u64::from(len) | u64::from(flags) << 32 | u64::from(index + 1) << 48;
        self.memory.write_obj([address.0, low], at).unwrap();
    }

    fn publish(&mut self, head: u16) {
        let at = AVAILABLE + 4 + 2 * u64::from(self.submitted % ENTRIES);
        self.memory.write_obj(head, GuestAddress(at)).unwrap();
        self.submitted = self.submitted.wrapping_add(1);
        let index = GuestAddress(AVAILABLE + 2);
        self.memory
            .store(self.submitted, index, Ordering::Release)
            .unwrap();
        self.kick.write(1).unwrap();
    }
}

fn header_at(slot: u16) -> GuestAddress {
    GuestAddress(REQUESTS + 32 * u64::from(slot))
}

fn status_at(slot: u16) -> GuestAddress {
    GuestAddress(REQUESTS + 32 * u64::from(slot) + 16)
}

fn data_at(slot: u16) -> GuestAddress {
    GuestAddress(DATA + SLOT * u64::from(slot))
}

/// The same through registers, with one queue whose parts all lie at `address`.
pub(super) fn start_with_queue_at(function: &mut Transport, address: u64) {
    function.write_memory(20, &[3]);
    function.write_memory(8, &1_u32.to_le_bytes());
    function.write_memory(12, &1_u32.to_le_bytes());
    function.write_memory(20, &[0xb]);
    for field in [32, 40, 48] {
        function.write_memory(field, &address.to_le_bytes());
    }
    function.write_memory(28, &1_u16.to_le_bytes());
    function.write_memory(20, &[0xf]);
}

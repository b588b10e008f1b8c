//! The common configuration structure (virtio 1.2, 4.1.4.3) and the device's status.

use serde::{Deserialize, Serialize};

use super::queue::{NO_VECTOR, Queue};

/// Device status bits (virtio 1.2, 2.1).
pub(super) mod status {
    pub(in super::super) const ACKNOWLEDGE: u8 = 1;
    pub(in super::super) const DRIVER_OK: u8 = 1 << 2;
    pub(in super::super) const FEATURES_OK: u8 = 1 << 3;
    pub(in super::super) const NEEDS_RESET: u8 = 1 << 6;
    pub(in super::super) const KNOWN: u8 = 0b1000_1111;
}

/// Offsets of the fields.
pub(super) mod field {
    pub(in super::super) const DEVICE_FEATURE_SELECT: usize = 0;
    pub(in super::super) const DEVICE_FEATURE: usize = 4;
    pub(in super::super) const DRIVER_FEATURE_SELECT: usize = 8;
    pub(in super::super) const DRIVER_FEATURE: usize = 12;
    pub(in super::super) const CONFIG_VECTOR: usize = 16;
    pub(in super::super) const NUM_QUEUES: usize = 18;
    pub(in super::super) const STATUS: usize = 20;
    pub(in super::super) const GENERATION: usize = 21;
    pub(in super::super) const QUEUE_SELECT: usize = 22;
    pub(in super::super) const QUEUE_SIZE: usize = 24;
    pub(in super::super) const QUEUE_VECTOR: usize = 26;
    pub(in super::super) const QUEUE_ENABLE: usize = 28;
    pub(in super::super) const QUEUE_NOTIFY_OFF: usize = 30;
    pub(in super::super) const QUEUE_DESC: usize = 32;
    pub(in super::super) const QUEUE_DRIVER: usize = 40;
    pub(in super::super) const QUEUE_DEVICE: usize = 48;
    pub(in super::super) const END: usize = 56;
}

/// The driver cannot do without it here (virtio 1.2, 6.2).
pub(super) const VERSION_1: u64 = 1 << 32;

/// What the driver wrote, besides the queues.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) offered: u64,
    pub(super) chosen: u64,
    pub(super) status: u8,
    pub(super) config_vector: u16,
    pub(super) queue_select: u16,
    offered_select: u32,
    chosen_select: u32,
}

/// What a snapshot keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ChoiceState {
    pub(super) chosen: u64,
    pub(super) status: u8,
    config_vector: u16,
    queue_select: u16,
    offered_select: u32,
    chosen_select: u32,
}

impl Common {
    pub(super) fn save(&self) -> ChoiceState {
        ChoiceState {
            chosen: self.chosen,
            status: self.status,
            config_vector: self.config_vector,
            queue_select: self.queue_select,
            offered_select: self.offered_select,
            chosen_select: self.chosen_select,
        }
    }

    pub(super) fn restore(&mut self, state: &ChoiceState) {
        self.chosen = state.chosen;
        self.status = state.status & status::KNOWN;
        self.config_vector = state.config_vector;
        self.queue_select = state.queue_select;
        self.offered_select = state.offered_select;
        self.chosen_select = state.chosen_select;
    }

    pub(super) fn new(offered: u64) -> Self {
        Self {
            offered,
            chosen: 0,
            status: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            offered_select: 0,
            chosen_select: 0,
        }
    }

    /// The structure as the driver reads it. A queue that is not there has size 0.
    pub(super) fn image(&self, queues: &[Queue], status: u8, generation: u8) -> [u8; field::END] {
        let mut image = [0; field::END];
        let mut put = |at: usize, bytes: &[u8]| {
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let count = u16::try_from(queues.len()).unwrap_or(u16::MAX);
        put(
            field::DEVICE_FEATURE_SELECT,
            &self.offered_select.to_le_bytes(),
        );
        put(
            field::DEVICE_FEATURE,
            &half(self.offered, self.offered_select).to_le_bytes(),
        );
        put(
            field::DRIVER_FEATURE_SELECT,
            &self.chosen_select.to_le_bytes(),
        );
        put(
            field::DRIVER_FEATURE,
            &half(self.chosen, self.chosen_select).to_le_bytes(),
        );
        put(field::CONFIG_VECTOR, &self.config_vector.to_le_bytes());
        put(field::NUM_QUEUES, &count.to_le_bytes());
        put(field::STATUS, &[status]);
        put(field::GENERATION, &[generation]);
        put(field::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        if let Some(queue) = queues.get(usize::from(self.queue_select)) {
            put(field::QUEUE_SIZE, &queue.size.to_le_bytes());
            put(field::QUEUE_VECTOR, &queue.vector.to_le_bytes());
            put(field::QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(field::QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            put(field::QUEUE_DESC, &queue.descriptors.to_le_bytes());
            put(field::QUEUE_DRIVER, &queue.available.to_le_bytes());
            put(field::QUEUE_DEVICE, &queue.used.to_le_bytes());
        }
        image
    }

    /// Fields that concern no queue and have no effect besides being read. False: not one of them.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        match (offset, word(data)) {
            (field::DEVICE_FEATURE_SELECT, Some(value)) => self.offered_select = value,
            (field::DRIVER_FEATURE_SELECT, Some(value)) => self.chosen_select = value,
            (field::DRIVER_FEATURE, Some(value)) => self.choose(value),
            _ => return false,
        }
        true
    }

    /// Features are fixed once the driver says so (virtio 1.2, 3.1.1).
    fn choose(&mut self, value: u32) {
        let shift = match self.chosen_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        if self.status & status::FEATURES_OK == 0 {
            let kept = self.chosen & !(u64::from(u32::MAX) << shift);
            self.chosen = kept | u64::from(value) << shift;
        }
    }

    /// The new status as far as the device agrees.
    pub(super) fn agreed(&self, wanted: u8) -> u8 {
        let features_fit = self.chosen & !self.offered == 0 && self.chosen & VERSION_1 != 0;
        let mut agreed = wanted & status::KNOWN;
        if !features_fit {
            agreed &= !status::FEATURES_OK;
        }
        if agreed & status::FEATURES_OK == 0 {
            agreed &= !status::DRIVER_OK;
        }
        agreed
    }
}

/// A field of a queue of two bytes, or half or whole of one of eight.
pub(super) fn write_queue(queue: &mut Queue, offset: usize, data: &[u8]) {
    // The driver may change a queue only before it is enabled (virtio 1.2, 4.1.4.3.2).
    if queue.enabled {
        return;
    }
    match (offset, half_word(data)) {
        (field::QUEUE_SIZE, Some(size)) => queue.set_size(size),
        (field::QUEUE_ENABLE, Some(1)) => queue.enabled = true,
        (field::QUEUE_DESC..field::QUEUE_DRIVER, _) => {
            address(&mut queue.descriptors, offset - field::QUEUE_DESC, data);
        }
        (field::QUEUE_DRIVER..field::QUEUE_DEVICE, _) => {
            address(&mut queue.available, offset - field::QUEUE_DRIVER, data);
        }
        (field::QUEUE_DEVICE..field::END, _) => {
            address(&mut queue.used, offset - field::QUEUE_DEVICE, data);
        }
        _ => {}
    }
}

fn address(place: &mut u64, offset: usize, data: &[u8]) {
    let mut bytes = place.to_le_bytes();
    let is_part = matches!((offset, data.len()), (0 | 4, 4) | (0, 8));
    if is_part {
        bytes[offset..offset + data.len()].copy_from_slice(data);
        *place = u64::from_le_bytes(bytes);
    }
}

fn half(features: u64, select: u32) -> u32 {
    let halves = [features, features >> 32];
    let half = usize::try_from(select).ok().and_then(|it| halves.get(it));
    half.map_or(0, |half| {
        u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0)
    })
}

pub(super) fn word(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn half_word(data: &[u8]) -> Option<u16> {
    data.try_into().ok().map(u16::from_le_bytes)
}

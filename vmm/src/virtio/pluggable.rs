//! Memory that a guest gets, and gives back, while it runs: virtio-mem (virtio 1.2, 5.15). The region is
//! mapped from the start, and takes no room on the host; the guest asks for blocks of it as far as somebody
//! outside lets it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};

use super::common::VERSION_1;
use super::in_process::{InProcess, ServeError, Server};
use super::{Kind, Signals};
use crate::memory::GuestMemory;

const ENTRIES: u16 = 128;
/// Bytes of a block: what the guest plugs at a time, at least.
const BLOCK: u64 = 2 << 20;

/// Requests (virtio 1.2, 5.15.6.1).
mod request {
    pub(super) const PLUG: u16 = 0;
    pub(super) const UNPLUG: u16 = 1;
    pub(super) const UNPLUG_ALL: u16 = 2;
    pub(super) const STATE: u16 = 3;
}
/// Bytes of a request, and of an answer.
const REQUEST: usize = 24;
const RESPONSE: usize = 10;

/// Answers: done, not now, wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    Ack = 0,
    Nack = 1,
    Error = 3,
}

/// What a block is in the answer to a question about several.
const PLUGGED: u16 = 0;
const UNPLUGGED: u16 = 1;
const MIXED: u16 = 2;

/// The region.
#[derive(Debug)]
pub struct Pluggable {
    memory: GuestMemory,
    address: u64,
    /// Bytes that the guest may have.
    requested: AtomicU64,
    /// Which blocks it has.
    blocks: Mutex<Vec<bool>>,
    signals: Mutex<Arc<Signals>>,
}

impl Pluggable {
    /// The memory's region of this kind, if it has one; nothing of it is plugged.
    #[must_use]
    pub fn new(memory: &GuestMemory) -> Option<Self> {
        let (address, len) = memory.pluggable()?;
        let blocks = usize::try_from(len / BLOCK).ok()?;
        Some(Self {
            memory: memory.clone(),
            address,
            requested: AtomicU64::new(0),
            blocks: Mutex::new(vec![false; blocks]),
            signals: Mutex::default(),
        })
    }

    /// Its device.
    #[must_use]
    pub fn device(self: &Arc<Self>) -> InProcess<Self> {
        InProcess::new(self.clone(), &self.memory)
    }

    /// From now on the guest may have so many bytes, in whole blocks; it takes or gives as it can. False
    /// where that is more than the region has.
    #[must_use]
    pub fn resize(&self, bytes: u64) -> bool {
        let bytes = bytes - bytes % BLOCK;
        if bytes > self.most() {
            return false;
        }
        self.requested.store(bytes, Ordering::Release);
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.config_changed();
        true
    }

    /// Bytes of the region.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.blocks().len() as u64 * BLOCK
    }

    /// Bytes that the guest may have.
    #[must_use]
    pub fn requested(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// Bytes that it has.
    #[must_use]
    pub fn plugged(&self) -> u64 {
        plugged(&self.blocks())
    }

    /// The machine starts again: the guest has none of it.
    pub fn unplug_all(&self) {
        let mut blocks = self.blocks();
        let len = blocks.len() as u64 * BLOCK;
        blocks.fill(false);
        let _ = self.memory.discard(self.address, len);
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<bool>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request, and a state.
    fn answer(&self, request: [u8; REQUEST]) -> (Response, u16) {
        let [kind_low, kind_high, _, _, _, _, _, _, rest @ ..] = request;
        let [a, b, c, d, e, f, g, h, count_low, count_high, ..] = rest;
        let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let count = u16::from_le_bytes([count_low, count_high]);
        let kind = u16::from_le_bytes([kind_low, kind_high]);
        if kind == request::UNPLUG_ALL {
            self.unplug_all();
            return (Response::Ack, 0);
        }
        let mut blocks = self.blocks();
        let before = plugged(&blocks);
        let Some(range) = self.range(address, count, &mut blocks) else {
            return (Response::Error, 0);
        };
        let (all, none) = (range.iter().all(|it| *it), !range.iter().any(|it| *it));
        let len = range.len() as u64 * BLOCK;
        match kind {
            request::PLUG if !none => (Response::Error, 0),
            request::PLUG if before + len > self.requested() => (Response::Nack, 0),
            request::PLUG => {
                range.fill(true);
                (Response::Ack, 0)
            }
            request::UNPLUG if !all => (Response::Error, 0),
            request::UNPLUG => {
                range.fill(false);
                let _ = self.memory.discard(address, len);
                (Response::Ack, 0)
            }
            request::STATE if all => (Response::Ack, PLUGGED),
            request::STATE if none => (Response::Ack, UNPLUGGED),
            request::STATE => (Response::Ack, MIXED),
            _ => (Response::Error, 0),
        }
    }

    /// At least one block, all of them in the region.
    fn range<'a>(
        &self,
        address: u64,
        count: u16,
        blocks: &'a mut [bool],
    ) -> Option<&'a mut [bool]> {
        let offset = address.checked_sub(self.address)?;
        let first = usize::try_from(offset / BLOCK).ok()?;
        let end = first.checked_add(count.into())?;
        let is_whole = offset.is_multiple_of(BLOCK) && count > 0;
        blocks.get_mut(first..end).filter(|_| is_whole)
    }
}

fn plugged(blocks: &[bool]) -> u64 {
    blocks.iter().filter(|plugged| **plugged).count() as u64 * BLOCK
}

impl Server for Pluggable {
    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn features(&self) -> u64 {
        VERSION_1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![ENTRIES]
    }

    /// Block size; node (with padding); address, size, usable size of the region; plugged, requested.
    fn config(&self) -> Vec<u8> {
        let (most, plugged) = (self.most(), self.plugged());
        let fields = [
            BLOCK,
            0,
            self.address,
            most,
            most,
            plugged,
            self.requested(),
        ];
        fields.map(u64::to_le_bytes).concat()
    }

    fn attach(&self, signals: Arc<Signals>) {
        *self.signals.lock().unwrap_or_else(PoisonError::into_inner) = signals;
    }

    fn save(&self) -> Option<Vec<u8>> {
        let mut state = self.requested().to_le_bytes().to_vec();
        state.extend(self.blocks().iter().map(|plugged| u8::from(*plugged)));
        Some(state)
    }

    fn load(&self, state: &[u8]) -> bool {
        let Some((requested, plugged)) = state.split_first_chunk() else {
            return false;
        };
        let mut blocks = self.blocks();
        let requested = u64::from_le_bytes(*requested);
        if plugged.len() != blocks.len() || requested > plugged.len() as u64 * BLOCK {
            return false;
        }
        *blocks = plugged.iter().map(|plugged| *plugged != 0).collect();
        self.requested.store(requested, Ordering::Release);
        true
    }

    fn serve(
        &self,
        _index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<bool, ServeError> {
        let chains: Vec<_> = queue.iter(memory)?.take(usize::from(ENTRIES)).collect();
        let used = !chains.is_empty();
        for chain in chains {
            let head = chain.head_index();
            let mut given = 0;
            let mut request = [0; REQUEST];
            for descriptor in chain {
                let room = usize::try_from(descriptor.len()).unwrap_or(0);
                if !descriptor.is_write_only() {
                    let len = room.min(REQUEST);
                    memory.read_slice(&mut request[..len], descriptor.addr())?;
                } else if room >= RESPONSE && given == 0 {
                    let (response, state) = self.answer(request);
                    let mut answer = [0; RESPONSE];
                    answer[..2].copy_from_slice(&(response as u16).to_le_bytes());
                    answer[8..].copy_from_slice(&state.to_le_bytes());
                    memory.write_slice(&answer, descriptor.addr())?;
                    given = 10;
                }
            }
            queue.add_used(memory, head, given)?;
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ByteSize, MemoryConfig};

    const MIB: u64 = 1 << 20;

    fn pluggable() -> Pluggable {
        let memory = GuestMemory::new(MemoryConfig {
            size: ByteSize(32 * MIB),
            pluggable: ByteSize(128 * MIB),
            hugepages: false,
            prefault: false,
        });
        Pluggable::new(&memory.unwrap()).unwrap()
    }

    fn ask(pluggable: &Pluggable, kind: u16, block: u64, count: u16) -> (Response, u16) {
        let mut request = [0; REQUEST];
        request[..2].copy_from_slice(&kind.to_le_bytes());
        let address = pluggable.address.wrapping_add(block.wrapping_mul(BLOCK));
        request[8..16].copy_from_slice(&address.to_le_bytes());
        request[16..18].copy_from_slice(&count.to_le_bytes());
        pluggable.answer(request)
    }

    #[test]
    fn a_guest_gets_what_it_may_have_and_gives_it_back() {
        use Response::{Ack, Error, Nack};
        let region = pluggable();
        assert_eq!(ask(&region, request::PLUG, 0, 1), (Nack, 0));
        assert!(region.resize(9 * MIB));
        assert_eq!(region.requested(), 8 * MIB);
        assert_eq!(ask(&region, request::PLUG, 1, 3), (Ack, 0));
        assert_eq!(ask(&region, request::PLUG, 3, 1), (Error, 0));
        assert_eq!(ask(&region, request::PLUG, 10, 2), (Nack, 0));
        assert_eq!(region.plugged(), 6 * MIB);
        let address = vm_memory::GuestAddress(region.address + BLOCK);
        region.memory.mapped().write_obj(7_u64, address).unwrap();
        assert_eq!(ask(&region, request::STATE, 1, 3), (Ack, PLUGGED));
        assert_eq!(ask(&region, request::STATE, 0, 1), (Ack, UNPLUGGED));
        assert_eq!(ask(&region, request::STATE, 0, 4), (Ack, MIXED));
        assert_eq!(ask(&region, request::UNPLUG, 0, 2), (Error, 0));
        assert_eq!(ask(&region, request::UNPLUG, 1, 1), (Ack, 0));
        assert_eq!(region.memory.mapped().read_obj::<u64>(address).unwrap(), 0);
        assert_eq!(ask(&region, request::UNPLUG_ALL, 0, 0), (Ack, 0));
        assert_eq!(region.plugged(), 0);
        assert!(!region.resize(129 * MIB) || region.requested() <= region.most());
        assert!(!region.resize(256 * MIB));
    }

    #[test]
    fn what_was_plugged_is_saved() {
        let region = pluggable();
        assert!(region.resize(8 * MIB));
        ask(&region, request::PLUG, 5, 2);
        let state = region.save().unwrap();
        let restored = pluggable();
        assert!(restored.load(&state));
        assert_eq!(restored.config(), region.config());
        assert!(!restored.load(&state[1..]) && !restored.load(&[]));
    }

    proptest::proptest! {
        /// Whatever is asked, no more is plugged than may be.
        #[test]
        fn any_request_is_answered(
            requested in 0_u64..200,
            asked: Vec<(u16, u8, u16)>,
            nonsense: Vec<[u8; REQUEST]>,
        ) {
            let region = pluggable();
            let _ = region.resize(requested * MIB);
            for (kind, block, count) in asked {
                ask(&region, kind % 5, block.into(), count % 70);
            }
            for request in nonsense {
                region.answer(request);
            }
            proptest::prop_assert!(region.plugged() <= region.requested());
        }
    }
}

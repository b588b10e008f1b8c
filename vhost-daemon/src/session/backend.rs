//! The library's view of a device: `VhostUserBackend`, one thread for each queue.

mod dirty_log;
mod thread;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Backend as FrontEndChannel, VhostUserProtocolFeatures};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use dirty_log::LastLog;

use super::ring::{Ring, check_backing};
use super::{Device, Transfer};
use crate::log::Limiter;
use crate::memory::SharedMemory;
use crate::metrics::Metrics;
use crate::sandbox::seccomp::{Role, ThreadFilters};
use crate::sys::{DirtyLog, GuardedMemory, end_abandoned};
use crate::worker::PollPolicy;

/// Largest configuration space a front end may ask for (vhost-user, `VHOST_USER_GET_CONFIG`).
const MAX_CONFIG: usize = 256;

/// One connection's back end.
pub(super) struct Backend<D> {
    device: Arc<D>,
    metrics: Arc<Metrics>,
    poll: PollPolicy,
    filters: Arc<ThreadFilters>,
    acknowledged: AtomicU64,
    rings: Mutex<Rings>,
    exits: Mutex<Exits>,
    limiter: Limiter,
    /// The current memory table. What is lost of it stays known while no queue runs on it.
    memory: Mutex<Option<GuardedMemory>>,
    last_log: Mutex<LastLog>,
}

/// The exit events of the queues' threads. The library takes a consumer of each for good and never
/// closes it: that is done here.
#[derive(Default)]
struct Exits {
    waiting: Vec<Option<(EventConsumer, EventNotifier)>>,
    handed_over: Vec<RawFd>,
}

#[derive(Default)]
struct Rings {
    /// The ring of each queue whose thread has come by.
    known: Vec<Option<Ring>>,
    closed: bool,
    /// The channel for requests of ours to the front end. It must stay open: User-Mode Linux takes
    /// its interrupts from it.
    to_front_end: Option<FrontEndChannel>,
}

impl<D: Device> Backend<D> {
    /// # Errors
    /// When descriptors are short.
    pub(super) fn new(
        device: Arc<D>,
        metrics: Arc<Metrics>,
        poll: PollPolicy,
        filters: Arc<ThreadFilters>,
    ) -> io::Result<Self> {
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let exit = |_| new_event_consumer_and_notifier(flags).map(Some);
        let waiting = (0..device.queues()).map(exit).collect::<io::Result<_>>()?;
        Ok(Self {
            device,
            metrics,
            poll,
            filters,
            acknowledged: AtomicU64::new(0),
            rings: Mutex::default(),
            exits: Mutex::new(Exits {
                waiting,
                handed_over: Vec::new(),
            }),
            limiter: Limiter::default(),
            memory: Mutex::default(),
            last_log: Mutex::default(),
        })
    }

    /// Ends what the library leaves: it closes no exit event, and raises none when it finds no thread for all queues.
    /// To be called when it is gone.
    pub(super) fn clean_up(&self) {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        exits.handed_over.drain(..).for_each(end_abandoned);
    }

    fn known_rings(&self) -> Vec<Ring> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.known.iter().flatten().cloned().collect()
    }

    /// Stops and drains every queue, now and for ever: the connection is over.
    pub(super) fn close(&self) {
        let rings = {
            let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
            rings.closed = true;
            rings.to_front_end = None;
            std::mem::take(&mut rings.known)
        };
        for ring in rings.into_iter().flatten() {
            ring.shut();
        }
        self.keep_memory(None);
    }

    fn keep_memory(&self, memory: Option<GuardedMemory>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    /// Remembers the ring of queue `index`; `false` if the connection is over.
    fn register(&self, index: usize, ring: &Ring) -> bool {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if rings.known.len() <= index {
            rings.known.resize(index + 1, None);
        }
        if !rings.closed {
            rings.known[index] = Some(ring.clone());
        }
        !rings.closed
    }
}

impl<D: Device> VhostUserBackend for Backend<D> {
    type Bitmap = DirtyLog;
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        self.device.queues()
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.device.max_queue_size())
    }

    fn features(&self) -> u64 {
        self.device.features()
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | VhostUserVirtioFeatures::LOG_ALL.bits()
    }

    fn acked_features(&self, features: u64) {
        let before = self.acknowledged.swap(features, Ordering::AcqRel);
        self.device.acknowledged(features);
        if before != features {
            // Workers that run already start again with the new ones.
            self.known_rings()
                .iter()
                .for_each(|ring| ring.change(|_| ()));
        }
    }

    /// Every front end asks for these, early, and only the library's session thread calls this.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        if let Err(error) = self.filters.enter(Role::Session) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the session's thread keeps the wider list");
        }
        let session = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::LOG_SHMFD;
        let session = if self.device.has_state() {
            session | VhostUserProtocolFeatures::DEVICE_STATE
        } else {
            session
        };
        (session - self.device.unsuitable_protocol_features()) | self.device.protocol_features()
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn set_backend_req_fd(&self, channel: FrontEndChannel) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.to_front_end = Some(channel);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let (offset, size) = (offset as usize, size as usize);
        let mut config = self.device.config();
        config.resize(MAX_CONFIG, 0);
        let end = offset.checked_add(size);
        end.and_then(|end| config.get(offset..end))
            .map(<[u8]>::to_vec)
            .unwrap_or_default()
    }

    /// A driver's bad write must not end the connection of its whole machine.
    fn set_config(&self, offset: u32, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.device.write_config(offset as usize, data)
            && let Some(suppressed) = self.limiter.permit()
        {
            tracing::warn!(%error, offset, suppressed, "a write to the configuration is ignored");
        }
        Ok(())
    }

    /// Makes every running worker drain and go on with the new table: after the answer, nothing
    /// uses the old one.
    fn update_memory(&self, memory: SharedMemory) -> io::Result<()> {
        let memory = memory.memory().into_inner();
        check_backing(&memory)?;
        self.carry_log_to(&memory)?;
        // First of all: from here on the control thread reads rings in it.
        self.keep_memory(Some(GuardedMemory::new(memory)?));
        self.known_rings()
            .iter()
            .for_each(|ring| ring.change(|_| ()));
        Ok(())
    }

    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        file: File,
    ) -> io::Result<Option<File>> {
        let direction = match direction {
            VhostTransferStateDirection::SAVE => Transfer::Save,
            VhostTransferStateDirection::LOAD => Transfer::Load,
        };
        let begun = if self.known_rings().iter().any(Ring::runs) {
            Err(io::Error::other("queues still run"))
        } else {
            self.device.transfer_state(direction, file)
        };
        if let Err(error) = &begun {
            tracing::error!(?direction, %error, "the device's state cannot be transferred");
        }
        begun.map(|()| None)
    }

    fn check_device_state(&self) -> io::Result<()> {
        let result = self.device.transferred();
        if let Err(error) = &result {
            tracing::error!(%error, "the device's state was not transferred");
        }
        result
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.num_queues()).map(|index| 1 << index).collect()
    }

    fn exit_event(&self, thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        let (consumer, notifier) = exits.waiting.get_mut(thread)?.take()?;
        exits.handed_over.push(consumer.as_raw_fd());
        Some((consumer, notifier))
    }

    /// Runs on the library's thread of queue `thread`, when its ring is enabled or kicked. The
    /// worker takes the thread over until the ring stops; it waits for kicks by itself.
    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        rings: &[Ring],
        thread: usize,
    ) -> io::Result<()> {
        if let Some(ring) = rings.first()
            && self.register(thread, ring)
        {
            self.filters.enter(Role::Queue).map_err(io::Error::other)?;
            self.serve_ring(thread, ring);
        }
        Ok(())
    }
}

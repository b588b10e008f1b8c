//! The thread of a device: it waits for kicks, and takes request after request from the queues.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::{Positions, ServeError, Server, Setup};
use crate::memory::GuestMemory;
use crate::virtio::QueueSetup;

/// What the epoll set tells apart from the queues' numbers.
const STOP: u64 = u64::MAX;

/// The thread's own.
pub(super) struct Serving<S> {
    queues: Vec<Served>,
    stop: EventFd,
    epoll: Epoll,
    memory: GuestMemory,
    server: Arc<S>,
}

impl<S: Server> Serving<S> {
    pub(super) fn new(
        setup: &Setup,
        stop: &EventFd,
        memory: GuestMemory,
        server: Arc<S>,
    ) -> Result<Self, ServeError> {
        let epoll = Epoll::new()?;
        let watch = |event: &EventFd, token| {
            let wanted = EpollEvent::new(EventSet::IN, token);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), wanted)
        };
        watch(stop, STOP)?;
        let queues = setup.queues.iter().map(Served::new);
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        for (place, served) in (0..).zip(&queues) {
            watch(&served.kick, place)?;
        }
        Ok(Self {
            queues,
            stop: stop.try_clone()?,
            epoll,
            memory,
            server,
        })
    }

    pub(super) fn run(mut self) -> (Positions, Result<(), ServeError>) {
        let result = self.serve_until_stopped();
        let position = |served: &Served| (served.index, served.queue.next_avail());
        (self.queues.iter().map(position).collect(), result)
    }

    fn serve_until_stopped(&mut self) -> Result<(), ServeError> {
        loop {
            let mut events = [EpollEvent::default(); 4];
            let count = match self.epoll.wait(-1, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if self.stop.read().is_ok() {
                return Ok(());
            }
            for event in &events[..count] {
                let place = usize::try_from(event.data()).unwrap_or(usize::MAX);
                if let Some(served) = self.queues.get_mut(place) {
                    served.serve(&*self.server, &self.memory)?;
                }
            }
        }
    }
}

struct Served {
    index: usize,
    queue: Queue,
    kick: EventFd,
    call: EventFd,
}

impl Served {
    fn new(setup: &QueueSetup) -> Result<Self, ServeError> {
        let mut queue = Queue::new(setup.size)?;
        queue.set_size(setup.size);
        queue.try_set_desc_table_address(GuestAddress(setup.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(setup.available))?;
        queue.try_set_used_ring_address(GuestAddress(setup.used))?;
        // What was taken was completed, and in order.
        queue.set_next_avail(setup.position);
        queue.set_next_used(setup.position);
        queue.set_ready(true);
        Ok(Self {
            index: setup.index,
            queue,
            kick: setup.kick.try_clone()?,
            call: setup.call.try_clone()?,
        })
    }

    /// At most one round of the ring: a driver that fills it for ever must not keep the thread from its end.
    fn serve<S: Server>(&mut self, server: &S, memory: &GuestMemory) -> Result<(), ServeError> {
        let _ = self.kick.read();
        let mapped = memory.mapped();
        let round = usize::from(self.queue.size());
        let requests: Vec<_> = self.queue.iter(mapped)?.take(round).collect();
        if requests.is_empty() {
            return Ok(());
        }
        let served = self.serve_all(requests, server, memory);
        // What was used before a request was refused was used.
        memory.mark_dirty(self.queue.used_ring(), used_ring_len(self.queue.size()));
        served?;
        if self.queue.needs_notification(mapped)? {
            // Full only when billions were not taken: one is pending then.
            let _ = self.call.write(1);
        }
        Ok(())
    }

    fn serve_all<S: Server>(
        &mut self,
        requests: Vec<super::Request<'_>>,
        server: &S,
        memory: &GuestMemory,
    ) -> Result<(), ServeError> {
        for request in requests {
            let head = request.head_index();
            let written = server.serve(self.index, request, memory)?;
            self.queue.add_used(memory.mapped(), head, written)?;
        }
        Ok(())
    }
}

/// le16 flags, idx; { le32 id, len } ring[size]; le16 avail_event (virtio 1.2, 2.7.8).
fn used_ring_len(size: u16) -> u64 {
    6 + 8 * u64::from(size)
}

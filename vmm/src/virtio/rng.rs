//! Random numbers of the host's (virtio 1.2, 5.4). The only device whose queue the VMM serves itself: a
//! thread owns the queue from the driver's start to its reset.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::common::VERSION_1;
use super::{Device, Kind, QueueSetup, Setup, Signals};
use crate::memory::GuestMemory;

const ENTRIES: u16 = 64;
/// Bytes for one request at most. A device may give fewer than asked for.
const MOST: usize = 64 << 10;

/// What the epoll set tells apart.
const KICK: u64 = 0;
const STOP: u64 = 1;

/// The device.
#[derive(Debug)]
pub struct Rng {
    memory: GuestMemoryMmap,
    source: Arc<File>,
    signals: Arc<Signals>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    stop: EventFd,
}

/// What ends the thread before its time.
#[derive(Debug, Error)]
enum RngError {
    #[error("the queue is not in memory or breaks its rules: {0}")]
    Queue(#[from] virtio_queue::Error),
    #[error("a buffer is not in memory")]
    Buffer(#[from] vm_memory::GuestMemoryError),
    #[error("no random numbers or events")]
    System(#[from] io::Error),
}

impl Rng {
    /// A device that gives what /dev/urandom gives.
    ///
    /// # Errors
    /// When that cannot be opened.
    pub fn new(memory: &GuestMemory) -> io::Result<Self> {
        Ok(Self {
            memory: memory.mapped().clone(),
            source: Arc::new(File::open("/dev/urandom")?),
            signals: Arc::default(),
            running: None,
        })
    }

    fn begin(&self, setup: Setup) -> Result<Option<Running>, RngError> {
        let Some(queue) = setup.queues.into_iter().next() else {
            return Ok(None);
        };
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let server = Server::new(queue, &stop, self.memory.clone(), self.source.clone())?;
        let signals = self.signals.clone();
        let thread = Builder::new().name("rng".into()).spawn(move || {
            if let Err(error) = server.run() {
                tracing::warn!(%error, "the driver of virtio-rng is at fault");
                signals.needs_reset();
            }
        })?;
        Ok(Some(Running { thread, stop }))
    }
}

impl Device for Rng {
    fn kind(&self) -> Kind {
        Kind::Rng
    }

    fn features(&self) -> u64 {
        VERSION_1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![ENTRIES]
    }

    fn attach(&mut self, signals: Arc<Signals>) {
        self.signals = signals;
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    fn start(&mut self, setup: Setup) {
        match self.begin(setup) {
            Ok(running) => self.running = running,
            Err(error) => {
                tracing::warn!(%error, "virtio-rng cannot be started");
                self.signals.needs_reset();
            }
        }
    }

    /// The call is fixed when the driver starts: Linux sets vectors before.
    fn set_call(&mut self, _queue: usize, _call: EventFd) {}

    fn reset(&mut self) {
        if let Some(running) = &self.running {
            // Cannot be full: it is written once or a few times.
            let _ = running.stop.write(1);
        }
    }

    fn is_reset(&self) -> bool {
        let running = self.running.as_ref();
        running.is_none_or(|running| running.thread.is_finished())
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The thread's own.
struct Server {
    queue: Queue,
    kick: EventFd,
    call: EventFd,
    stop: EventFd,
    epoll: Epoll,
    memory: GuestMemoryMmap,
    source: Arc<File>,
}

impl Server {
    fn new(
        setup: QueueSetup,
        stop: &EventFd,
        memory: GuestMemoryMmap,
        source: Arc<File>,
    ) -> Result<Self, RngError> {
        let mut queue = Queue::new(ENTRIES)?;
        queue.set_size(setup.size);
        queue.try_set_desc_table_address(vm_memory::GuestAddress(setup.descriptors))?;
        queue.try_set_avail_ring_address(vm_memory::GuestAddress(setup.available))?;
        queue.try_set_used_ring_address(vm_memory::GuestAddress(setup.used))?;
        queue.set_ready(true);
        let epoll = Epoll::new()?;
        for (event, token) in [(&setup.kick, KICK), (stop, STOP)] {
            let wanted = EpollEvent::new(EventSet::IN, token);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), wanted)?;
        }
        Ok(Self {
            queue,
            kick: setup.kick,
            call: setup.call,
            stop: stop.try_clone()?,
            epoll,
            memory,
            source,
        })
    }

    fn run(mut self) -> Result<(), RngError> {
        loop {
            let mut events = [EpollEvent::default(); 2];
            match self.epoll.wait(-1, &mut events) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error.into());
                }
                _ => {}
            }
            if self.stop.read().is_ok() {
                return Ok(());
            }
            let _ = self.kick.read();
            self.serve()?;
        }
    }

    /// At most one round of the ring: whoever fills it for ever must not keep the thread from its end.
    fn serve(&mut self) -> Result<(), RngError> {
        let mut used = false;
        let waiting = self.queue.iter(&self.memory)?.take(usize::from(ENTRIES));
        let chains: Vec<_> = waiting.collect();
        for chain in chains {
            let head = chain.head_index();
            let mut given = 0;
            for descriptor in chain.writable() {
                let wanted = usize::try_from(descriptor.len()).unwrap_or(MOST);
                let len = wanted.min(MOST - given);
                let mut bytes = vec![0; len];
                (&*self.source).read_exact(&mut bytes)?;
                self.memory.write_slice(&bytes, descriptor.addr())?;
                given += len;
            }
            let given = u32::try_from(given).unwrap_or(0);
            self.queue.add_used(&self.memory, head, given)?;
            used = true;
        }
        if used && self.queue.needs_notification(&self.memory)? {
            // Full only when billions were not taken: one is pending then.
            let _ = self.call.write(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use vm_memory::GuestAddress;

    use super::*;
    use crate::memory::{ByteSize, MemoryConfig};

    const DESCRIPTORS: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;
    const DATA: u64 = 0x10_0000;

    struct Driver {
        device: Rng,
        memory: GuestMemory,
        kick: EventFd,
        call: EventFd,
    }

    impl Driver {
        fn new() -> Self {
            let memory = GuestMemory::new(MemoryConfig {
                size: ByteSize(32 << 20),
                hugepages: false,
                prefault: false,
            });
            let memory = memory.unwrap();
            Self {
                device: Rng::new(&memory).unwrap(),
                memory,
                kick: EventFd::new(EFD_NONBLOCK).unwrap(),
                call: EventFd::new(EFD_NONBLOCK).unwrap(),
            }
        }

        fn start(&mut self, used: u64) {
            self.device.start(Setup {
                features: VERSION_1,
                queues: vec![QueueSetup {
                    index: 0,
                    size: 4,
                    descriptors: DESCRIPTORS,
                    available: AVAILABLE,
                    used,
                    kick: self.kick.try_clone().unwrap(),
                    call: self.call.try_clone().unwrap(),
                }],
            });
        }

        fn ask(&self, address: u64, len: u32) {
            let memory = self.memory.mapped();
            let rest = u64::from(len) | 2 << 32;
            memory
                .write_obj([address, rest], GuestAddress(DESCRIPTORS))
                .unwrap();
            memory
                .store(1_u16, GuestAddress(AVAILABLE + 2), Ordering::Release)
                .unwrap();
            self.kick.write(1).unwrap();
        }

        fn wait(&self, mut done: impl FnMut(&Self) -> bool) {
            let give_up = Instant::now() + Duration::from_secs(5);
            while !done(self) {
                assert!(Instant::now() < give_up);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn a_driver_gets_numbers_and_a_bounded_number_of_them() {
        let mut driver = Driver::new();
        driver.start(USED);
        driver.ask(DATA, 1 << 20);
        driver.wait(|driver| driver.call.read().is_ok());
        let memory = driver.memory.mapped();
        let given: u32 = memory.read_obj(GuestAddress(USED + 8)).unwrap();
        assert_eq!(given, 64 << 10);
        let numbers: [u64; 4] = memory.read_obj(GuestAddress(DATA)).unwrap();
        assert!(numbers.iter().all(|number| *number != 0) && numbers[0] != numbers[1]);
        let behind: u64 = memory.read_obj(GuestAddress(DATA + (64 << 10))).unwrap();
        assert_eq!(behind, 0);
    }

    #[test]
    fn a_reset_ends_the_thread_and_the_next_start_works() {
        let mut driver = Driver::new();
        for _ in 0..3 {
            driver.start(USED);
            assert!(!driver.device.is_reset());
            driver.device.reset();
            driver.wait(|driver| driver.device.is_reset());
        }
    }

    #[test]
    fn nonsense_needs_a_reset() {
        for (used, buffer) in [(1 << 40, DATA), (USED, u64::MAX - 3)] {
            let mut driver = Driver::new();
            driver.start(used);
            driver.ask(buffer, 64);
            driver.wait(|driver| driver.device.signals.is_reset_needed());
            driver.device.reset();
            driver.wait(|driver| driver.device.is_reset());
        }
    }
}

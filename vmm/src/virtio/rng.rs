//! Random numbers of the host's (virtio 1.2, 5.4).

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::Kind;
use super::common::VERSION_1;
use super::in_process::{InProcess, Request, ServeError, Server};
use crate::memory::GuestMemory;

const ENTRIES: u16 = 64;
/// Bytes for one request at most. A device may give fewer than asked for.
const MOST: usize = 64 << 10;

/// Gives what /dev/urandom gives.
#[derive(Debug)]
pub struct Rng(File);

impl Rng {
    /// Opens the source.
    ///
    /// # Errors
    /// When that cannot be opened.
    pub fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }

    /// A device with this source.
    #[must_use]
    pub fn device(self, memory: &GuestMemory) -> InProcess<Self> {
        InProcess::new(Arc::new(self), memory)
    }
}

impl Server for Rng {
    fn kind(&self) -> Kind {
        Kind::Rng
    }

    fn features(&self) -> u64 {
        VERSION_1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![ENTRIES]
    }

    fn serve(
        &self,
        _queue: usize,
        request: Request<'_>,
        memory: &GuestMemory,
    ) -> Result<u32, ServeError> {
        let mut given = 0;
        for descriptor in request.writable() {
            let wanted = usize::try_from(descriptor.len()).unwrap_or(MOST);
            let len = wanted.min(MOST - given);
            let mut bytes = vec![0; len];
            (&self.0).read_exact(&mut bytes)?;
            memory.write(descriptor.addr().0, &bytes)?;
            given += len;
        }
        Ok(u32::try_from(given).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::memory::{ByteSize, MemoryConfig};
    use crate::virtio::{Device, QueueSetup, Setup, Signals};

    const DESCRIPTORS: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;
    const DATA: u64 = 0x10_0000;

    struct Driver {
        device: InProcess<Rng>,
        memory: GuestMemory,
        signals: Arc<Signals>,
        asked: u16,
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
            let mut device = Rng::open().unwrap().device(&memory);
            let signals = Arc::new(Signals::default());
            device.attach(signals.clone());
            Self {
                device,
                memory,
                signals,
                asked: 0,
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
                    position: 0,
                }],
            });
        }

        fn ask(&mut self, address: u64, len: u32) {
            self.asked += 1;
            let memory = self.memory.mapped();
            let rest = u64::from(len) | 2 << 32;
            memory
                .write_obj([address, rest], GuestAddress(DESCRIPTORS))
                .unwrap();
            memory
                .store(self.asked, GuestAddress(AVAILABLE + 2), Ordering::Release)
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
    fn a_paused_device_gives_nothing_and_then_goes_on_where_it_was() {
        let mut driver = Driver::new();
        driver.start(USED);
        driver.ask(DATA, 64);
        driver.wait(|driver| driver.call.read().is_ok());
        driver.device.pause();
        driver.wait(|driver| driver.device.is_paused());
        driver.ask(DATA + 4096, 64);
        std::thread::sleep(Duration::from_millis(20));
        let used = |driver: &Driver| {
            let memory = driver.memory.mapped();
            memory
                .load::<u16>(GuestAddress(USED + 2), Ordering::Acquire)
                .unwrap()
        };
        assert_eq!(used(&driver), 1);
        let log = driver.memory.begin_log().unwrap();
        driver.device.resume();
        driver.wait(|driver| used(driver) == 2);
        // The numbers, and the used ring.
        driver.wait(|driver| driver.memory.marked(&log) == 2 * 4096);
        let memory = driver.memory.mapped();
        let number: u64 = memory.read_obj(GuestAddress(DATA + 4096)).unwrap();
        assert_ne!(number, 0);
    }

    #[test]
    fn nonsense_needs_a_reset() {
        for (used, buffer) in [(1 << 40, DATA), (USED, u64::MAX - 3)] {
            let mut driver = Driver::new();
            driver.start(used);
            driver.ask(buffer, 64);
            driver.wait(|driver| driver.signals.is_reset_needed());
            driver.device.reset();
            driver.wait(|driver| driver.device.is_reset());
        }
    }
}

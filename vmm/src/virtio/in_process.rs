//! A device whose queues the VMM serves itself, where the data path is nobody's concern: a thread owns
//! the queues from the driver's start to its reset, or to a pause.

mod serving;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};

use thiserror::Error;
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Condition, Device, Kind, Positions, SaveError, Saved, Setup, Signals};
use crate::memory::GuestMemory;
use serving::Serving;

/// What a device does. Shared by its thread and by processors that look at its configuration.
pub trait Server: Send + Sync + 'static {
    /// What it is.
    fn kind(&self) -> Kind;
    /// Features it offers.
    fn features(&self) -> u64;
    /// Most entries of each queue.
    fn queue_sizes(&self) -> Vec<u16>;
    /// Its configuration space.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }
    /// The driver writes to configuration space.
    fn write_config(&self, _offset: usize, _data: &[u8]) {}
    /// Whom to tell about changes.
    fn attach(&self, _signals: Arc<Signals>) {}
    /// The driver chose these features; none: it reset the device.
    fn chosen(&self, _features: Option<u64>) {}
    /// What a snapshot keeps of it.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }
    /// Takes what was saved; false where it makes no sense.
    fn load(&self, _state: &[u8]) -> bool {
        false
    }
    /// Serves a request of a queue; how many bytes it wrote into the request's buffers.
    ///
    /// # Errors
    /// When the driver breaks the rules: the device needs a reset.
    fn serve(
        &self,
        queue: usize,
        request: Request<'_>,
        memory: &GuestMemory,
    ) -> Result<u32, ServeError>;
}

/// A request: the buffers that the driver chained.
pub type Request<'a> = DescriptorChain<&'a GuestMemoryMmap>;

/// What ends a device's thread before its time.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The queue itself.
    #[error("the queue is not in memory or breaks its rules: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// What the queue points to.
    #[error("a buffer is not in memory: {0}")]
    Buffer(#[from] vm_memory::GuestMemoryError),
    /// Ours.
    #[error("no descriptors or threads: {0}")]
    System(#[from] io::Error),
}

/// The device.
#[derive(Debug)]
pub struct InProcess<S: Server> {
    server: Arc<S>,
    memory: GuestMemory,
    signals: Arc<Signals>,
    /// What the driver wants, and where each queue goes on.
    setup: Option<Setup>,
    paused: bool,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<Positions>,
    stop: EventFd,
}

impl<S: Server> InProcess<S> {
    /// A device that is reset.
    #[must_use]
    pub fn new(server: Arc<S>, memory: &GuestMemory) -> Self {
        Self {
            server,
            memory: memory.clone(),
            signals: Arc::default(),
            setup: None,
            paused: false,
            running: None,
        }
    }

    fn begin(&mut self) {
        let Some(setup) = self.setup.as_ref().filter(|_| !self.paused) else {
            return;
        };
        match self.thread(setup) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                tracing::warn!(kind = ?self.server.kind(), %error, "a device cannot be started");
                self.signals.needs_reset();
            }
        }
    }

    fn thread(&self, setup: &Setup) -> Result<Running, ServeError> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let serving = Serving::new(setup, &stop, self.memory.clone(), self.server.clone())?;
        let signals = self.signals.clone();
        let kind = self.server.kind();
        let name = format!("{kind:?}").to_lowercase();
        let thread = Builder::new().name(name).spawn(move || {
            let (positions, result) = serving.run();
            if let Err(error) = result {
                tracing::warn!(?kind, %error, "a driver is at fault");
                signals.needs_reset();
            }
            positions
        })?;
        Ok(Running { thread, stop })
    }

    fn stop(&self) {
        if let Some(running) = &self.running {
            // Cannot be full: it is written once or a few times.
            let _ = running.stop.write(1);
        }
    }

    fn is_stopped(&self) -> bool {
        let running = self.running.as_ref();
        running.is_none_or(|running| running.thread.is_finished())
    }

    /// Where queues go on that a pause ended.
    fn keep_positions(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let positions = running.thread.join().unwrap_or_default();
        for queue in self.setup.iter_mut().flat_map(|it| &mut it.queues) {
            if let Some(position) = positions.get(&queue.index) {
                queue.position = *position;
            }
        }
    }
}

impl<S: Server> Device for InProcess<S> {
    fn kind(&self) -> Kind {
        self.server.kind()
    }

    fn features(&self) -> u64 {
        self.server.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.server.queue_sizes()
    }

    fn attach(&mut self, signals: Arc<Signals>) {
        self.server.attach(signals.clone());
        self.signals = signals;
    }

    fn config(&self) -> Vec<u8> {
        self.server.config()
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.server.write_config(offset, data);
    }

    fn start(&mut self, setup: Setup) {
        self.server.chosen(Some(setup.features));
        self.setup = Some(setup);
        self.begin();
    }

    /// The call is fixed when the driver starts: Linux sets vectors before.
    fn set_call(&mut self, _queue: usize, _call: EventFd) {}

    fn reset(&mut self) {
        self.server.chosen(None);
        self.setup = None;
        self.stop();
    }

    fn is_reset(&self) -> bool {
        self.setup.is_none() && self.is_stopped()
    }

    fn pause(&mut self) {
        self.paused = true;
        self.stop();
    }

    fn is_paused(&self) -> bool {
        self.paused && self.is_stopped()
    }

    fn resume(&mut self) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        self.keep_positions();
        self.begin();
        // Kicks that nobody saw.
        for queue in self.setup.iter().flat_map(|setup| &setup.queues) {
            let _ = queue.kick.write(1);
        }
    }

    fn condition(&self) -> Condition {
        Condition {
            connected: true,
            started: self.setup.is_some(),
            losses: 0,
        }
    }

    fn save(&mut self) -> Receiver<Result<Saved, SaveError>> {
        self.keep_positions();
        let queues = self.setup.iter().flat_map(|setup| &setup.queues);
        answered(Ok(Saved {
            positions: queues.map(|queue| (queue.index, queue.position)).collect(),
            state: self.server.save(),
        }))
    }

    fn load(&mut self, _features: u64, state: Vec<u8>) -> Receiver<Result<(), SaveError>> {
        answered(if self.server.load(&state) {
            Ok(())
        } else {
            Err(SaveError::NoState)
        })
    }

    /// What is written goes through the memory, which knows its log.
    fn follow_log(&mut self) -> Receiver<Result<(), SaveError>> {
        answered(Ok(()))
    }
}

fn answered<T>(answer: T) -> Receiver<T> {
    let (sender, receiver) = channel();
    // The receiver is here.
    let _ = sender.send(answer);
    receiver
}

impl<S: Server> Drop for InProcess<S> {
    fn drop(&mut self) {
        self.stop();
    }
}

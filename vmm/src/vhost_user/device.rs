//! The device that the transport sees: it leaves everything on the desk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use super::desk::{Desk, Transfer};
use super::session::Session;
use super::worker::Worker;
use super::{FrontEndConfig, FrontEndError};
use crate::memory::GuestMemory;
use crate::virtio::{Condition, Device, Kind, SaveError, Saved, Setup, Signals};

/// How long a daemon that was started a moment ago has to listen.
const STARTING: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(10);

/// What to do when nobody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Give up.
    None,
    /// The daemon may have been started a moment ago: wait for two seconds.
    Starting,
}

/// A device whose daemon is connected, or was and will be again.
#[derive(Debug)]
pub struct FrontEnd {
    kind: Kind,
    features: u64,
    queue_sizes: Vec<u16>,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl FrontEnd {
    /// Connects to the daemon and asks what it offers.
    ///
    /// # Errors
    /// When nobody listens, or the daemon cannot be what was asked for.
    pub fn connect(
        config: FrontEndConfig,
        memory: &GuestMemory,
        patience: Patience,
    ) -> Result<Self, FrontEndError> {
        let mut session = first_session(&config, patience)?;
        let features = config.features(session.features());
        let queues = config.queue_count(features);
        session.check_queues(&config, queues)?;
        let space = session.config(&config)?;
        session.trust();
        let desk = Arc::new(Desk::new(space)?);
        let (kind, queue_size) = (config.kind, config.queue_size);
        let worker = Worker::new(config, memory.clone(), desk.clone(), session)?;
        let thread = Builder::new()
            .name(format!("{kind:?}").to_lowercase())
            .spawn(move || worker.run())?;
        Ok(Self {
            kind,
            features,
            queue_sizes: vec![queue_size; queues],
            desk,
            thread: Some(thread),
        })
    }
}

fn first_session(config: &FrontEndConfig, patience: Patience) -> Result<Session, FrontEndError> {
    let give_up = match patience {
        Patience::None => Instant::now(),
        Patience::Starting => Instant::now() + STARTING,
    };
    loop {
        match Session::connect(&config.socket) {
            Err(FrontEndError::Connect(_)) if Instant::now() < give_up => {
                std::thread::sleep(RETRY);
            }
            other => return other,
        }
    }
}

impl Device for FrontEnd {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.queue_sizes.clone()
    }

    fn attach(&mut self, signals: Arc<Signals>) {
        self.desk.state().signals = signals;
    }

    fn config(&self) -> Vec<u8> {
        self.desk.state().config.clone()
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.desk.write_config(offset, data);
    }

    fn start(&mut self, setup: Setup) {
        self.desk.want(Some(setup));
    }

    fn set_call(&mut self, queue: usize, call: EventFd) {
        self.desk.change(|state| {
            state.calls.insert(queue, call);
        });
    }

    fn reset(&mut self) {
        self.desk.want(None);
    }

    fn is_reset(&self) -> bool {
        self.desk.is_reset()
    }

    fn pause(&mut self) {
        self.desk.pause(true);
    }

    fn is_paused(&self) -> bool {
        self.desk.is_paused()
    }

    fn resume(&mut self) {
        self.desk.pause(false);
    }

    fn condition(&self) -> Condition {
        self.desk.condition()
    }

    fn save(&mut self) -> Receiver<Result<Saved, SaveError>> {
        let (sender, receiver) = channel();
        self.desk
            .change(|it| it.transfer = Some(Transfer::Save(sender)));
        receiver
    }

    fn load(&mut self, features: u64, state: Vec<u8>) -> Receiver<Result<(), SaveError>> {
        let (done, receiver) = channel();
        let transfer = Transfer::Load {
            features,
            state,
            done,
        };
        self.desk.change(|it| it.transfer = Some(transfer));
        receiver
    }

    fn follow_log(&mut self) -> Receiver<Result<(), SaveError>> {
        let (sender, receiver) = channel();
        self.desk
            .change(|it| it.transfer = Some(Transfer::FollowLog(sender)));
        receiver
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        self.desk.change(|state| state.quit = true);
        // A daemon that does not answer must not keep the machine from ending.
        drop(self.thread.take());
    }
}

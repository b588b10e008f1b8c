//! What the transport needs of a device.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use super::{Positions, Signals};

/// Kinds of devices, with their numbers (virtio 1.2, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Network interface.
    Net = 1,
    /// Disk.
    Block = 2,
    /// Entropy source.
    Rng = 4,
    /// Memory that the guest gives back.
    Balloon = 5,
    /// Sockets between host and guest.
    Vsock = 19,
    /// File system.
    Fs = 26,
}

impl Kind {
    /// The word for it: of its flag, of its key in a file and in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Block => "disk",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
            Self::Fs => "fs",
        }
    }

    /// PCI interface, subclass and class (PCI code and ID assignment specification 1.11).
    #[must_use]
    pub fn class(self) -> [u8; 3] {
        match self {
            Self::Net => [0, 0, 2],
            Self::Block | Self::Fs => [0, 0x80, 1],
            Self::Vsock => [0, 0x80, 2],
            Self::Rng | Self::Balloon => [0, 0, 0xff],
        }
    }
}

/// A queue as the driver set it up. Addresses are the guest's, and unchecked.
#[derive(Debug)]
pub struct QueueSetup {
    /// Its number.
    pub index: usize,
    /// Entries, a power of two up to what the device takes.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring, the driver's.
    pub available: u64,
    /// Used ring, the device's.
    pub used: u64,
    /// The driver signals it when there is something to do.
    pub kick: EventFd,
    /// The device signals it when something is done.
    pub call: EventFd,
    /// The first entry of the available ring to be taken, modulo 2^16: 0 unless the queue was served
    /// before.
    pub position: u16,
}

/// What a driver chose when it started the device.
#[derive(Debug)]
pub struct Setup {
    /// Features that both know.
    pub features: u64,
    /// Queues that the driver enabled.
    pub queues: Vec<QueueSetup>,
}

/// A device behind the transport. Nothing here waits for anybody: a processor is calling.
pub trait Device: Send {
    /// What it is.
    fn kind(&self) -> Kind;
    /// Features it offers.
    fn features(&self) -> u64;
    /// Most entries of each queue.
    fn queue_sizes(&self) -> Vec<u16>;
    /// From now on, whom to tell about changes.
    fn attach(&mut self, signals: Arc<Signals>);
    /// Its configuration space, up to its present end.
    fn config(&self) -> Vec<u8>;
    /// The driver writes to configuration space.
    fn write_config(&mut self, offset: usize, data: &[u8]);
    /// Start serving queues.
    fn start(&mut self, setup: Setup);
    /// The interrupt of a running queue is another one from now on.
    fn set_call(&mut self, queue: usize, call: EventFd);
    /// Begin to stop; memory is touched until [`is_reset`](Self::is_reset).
    fn reset(&mut self);
    /// Whether nothing touches the guest's memory any more.
    fn is_reset(&self) -> bool;
    /// Begin to stop for a while, with what was begun completed; memory is touched until
    /// [`is_paused`](Self::is_paused). What the driver wants meanwhile is kept for later.
    fn pause(&mut self);
    /// Whether nothing touches the guest's memory until [`resume`](Self::resume).
    fn is_paused(&self) -> bool;
    /// Go on where it was.
    fn resume(&mut self);
    /// How it is.
    fn condition(&self) -> Condition;
    /// What a snapshot keeps of a paused device; the answer comes when its daemon has given it.
    fn save(&mut self) -> Receiver<Result<Saved, SaveError>>;
    /// Gives a paused device the state that a daemon of its kind had saved, for a driver with these
    /// features, which is started next.
    fn load(&mut self, features: u64, state: Vec<u8>) -> Receiver<Result<(), SaveError>>;
    /// Looks whether the memory has a log; from the answer on, all that is written is marked there.
    fn follow_log(&mut self) -> Receiver<Result<(), SaveError>>;
}

/// What a snapshot keeps of a device, besides what its driver wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// Where its queues go on.
    pub positions: Positions,
    /// Its daemon's own state; nothing where the daemon needs none.
    pub state: Option<Vec<u8>>,
}

/// Why a device cannot be saved, or restored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SaveError {
    /// A daemon that keeps state, and does not hand it out.
    #[error("its daemon does not offer DEVICE_STATE, so what the guest has open would be lost")]
    NotOffered,
    /// A daemon that cannot tell what it writes.
    #[error(
        "its daemon does not log what it writes (LOG_SHMFD, LOG_ALL), so the guest must be paused"
    )]
    NoLog,
    /// The daemon is not there.
    #[error("its daemon is gone; wait until it is back")]
    Gone,
    /// State for a device that has none.
    #[error("the snapshot has a state for it, and such a device has none")]
    NoState,
    /// More than anybody needs.
    #[error("its daemon's state has more than {0} bytes")]
    Long(usize),
    /// Between the daemon and us.
    #[error("its daemon's state was not transferred: {0}")]
    Transfer(String),
}

/// How a device is, for whoever watches the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// Whoever serves it is there.
    pub connected: bool,
    /// The driver has started it.
    pub started: bool,
    /// How often its daemon was lost.
    pub losses: u64,
}

/// A device that outlives the machine's resets.
pub type SharedDevice = Arc<Mutex<dyn Device>>;

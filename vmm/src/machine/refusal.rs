use std::io;

use thiserror::Error;

use super::MachineError;
use crate::kvm::KvmError;
use crate::memory::ByteSize;
use crate::snapshot::SnapshotError;
use crate::vhost_user::FrontEndError;
use crate::virtio::SaveError;

/// Why an order is not carried out.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Somebody ended it.
    #[error("the machine has ended")]
    Ended,
    /// A name that nobody has.
    #[error("there is no device {0}")]
    NoDevice(String),
    /// A name that somebody has.
    #[error("there is a device {0} already")]
    SameId(String),
    /// A second device where one is possible.
    #[error("the machine has a vsock device already")]
    SecondVsock,
    /// The daemon.
    #[error("{label}")]
    Device {
        /// Which device.
        label: String,
        /// What is wrong.
        source: FrontEndError,
    },
    /// The bus or the kernel.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A daemon that does not complete what it began.
    #[error("the daemon of {0} does not stop; the machine goes on")]
    Busy(String),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A device's daemon does not hand out what it knows.
    #[error("{id}")]
    Save {
        /// The device.
        id: String,
        /// Why.
        source: SaveError,
    },
    /// A machine without one.
    #[error("the machine has no balloon: --balloon 0 gives it one")]
    NoBalloon,
    /// A balloon in which no guest has room.
    #[error("a balloon of {0} is all of the guest's memory")]
    LargeBalloon(ByteSize),
    /// The kernel does not tell.
    #[error("cannot tell how much memory is used")]
    Resident(#[source] io::Error),
    /// No log of what is written.
    #[error("there is no memory to log what the guest writes")]
    Log(#[source] io::Error),
    /// A daemon that came back as another one, which does not mark what it writes.
    #[error("a daemon that came back does not log what it writes; the machine goes on")]
    Unlogged,
    /// The guest, or somebody else, ends the machine at this moment.
    #[error("the machine is about to end")]
    Ending,
    /// The snapshot's files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

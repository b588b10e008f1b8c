//! The daemon's end: a session with its queues.

use std::path::Path;
use std::time::Duration;

use super::urgent::Urgent;
use super::{Error, Result, layout};
use crate::frontend::fs::REQUEST_QUEUE;
use crate::frontend::{
    DriverQueue, FrontEnd, GuestMemory, Negotiated, ProtocolFeatures, SlotQueue, features,
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Requests in flight in a queue: four jobs of depth 32.
pub(super) const SLOTS: u16 = 128;

/// A session whose queues run.
pub(super) struct Attached {
    pub(super) front_end: FrontEnd,
    /// The rings, to hand to the next daemon.
    pub(super) rings: Vec<DriverQueue>,
    pub(super) requests: Vec<SlotQueue>,
    pub(super) urgent: Urgent,
}

/// Connects to a daemon and sets its queues up.
pub(super) fn attach(socket: &Path, queues: usize) -> Result<Attached> {
    let (mut front_end, negotiated) = connect(socket)?;
    if negotiated.features & features::INDIRECT_DESC == 0 {
        return Err(Error::NotOffered("VIRTIO_F_INDIRECT_DESC"));
    }
    let offered = negotiated.queues.map_or(1, |all| all.saturating_sub(1));
    if offered < queues as u64 {
        return Err(Error::TooFewQueues {
            wanted: queues,
            offered,
        });
    }
    // Tables and rings of a queue take far less than a MiB.
    let memory = GuestMemory::with_size((queues + 1) * layout::queue_bytes(SLOTS) + (1 << 20))?;
    front_end.set_mem_table(&memory)?;
    let mut rings = Vec::new();
    let mut set_up = |index| {
        let queue = front_end.set_up_queue(index, SLOTS)?;
        rings.push(queue.handle()?);
        SlotQueue::new(queue)
    };
    let urgent = Urgent::new(set_up(0)?)?;
    let requests: crate::frontend::Result<Vec<_>> = (0..queues)
        .map(|index| set_up(REQUEST_QUEUE + index))
        .collect();
    Ok(Attached {
        requests: requests?,
        urgent,
        front_end,
        rings,
    })
}

fn connect(socket: &Path) -> Result<(FrontEnd, Negotiated)> {
    let mut front_end = FrontEnd::connect(socket, TIMEOUT)?;
    let wanted = features::VERSION_1 | features::EVENT_IDX | features::INDIRECT_DESC;
    let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    let negotiated = front_end.handshake(wanted, protocol)?;
    Ok((front_end, negotiated))
}

/// Hands rings that are in use to a daemon that has just been started. It goes on behind the used index,
/// as QEMU has it where there is no in-flight memory.
pub(super) fn attach_again(socket: &Path, rings: &[DriverQueue]) -> Result<FrontEnd> {
    let (mut front_end, _) = connect(socket)?;
    for (at, ring) in rings.iter().enumerate() {
        if at == 0 {
            front_end.set_mem_table(ring.memory())?;
        }
        front_end.attach_queue(ring, ring.used_idx()?)?;
        // Kicks and calls that the last daemon took or owed.
        ring.kick_always()?;
        ring.call_driver()?;
    }
    Ok(front_end)
}

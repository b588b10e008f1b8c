//! A learning switch between the ports of one process: frames go from guest to guest without a tap.
//!
//! Each lane of a port has a mailbox. The sender's thread copies a frame out of its guest's memory
//! into the mailbox, the receiver's thread from there into its own guest's: nobody touches another
//! guest's rings or memory.

mod delivery;
mod mailbox;
mod port;
mod sink;
mod table;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Offloads;
use crate::header::HeaderLen;
use mailbox::Mailbox;
pub use port::{SwitchPort, SwitchSource};
pub use sink::SwitchSink;
use table::Table;

/// What all ports share.
struct Shared {
    ports: Box<[Inlet]>,
    table: Table,
}

/// The way to one port.
struct Inlet {
    lanes: Box<[Arc<Mailbox>]>,
    /// Which lanes a guest reads, as bits.
    open: AtomicU64,
    /// What its guest takes unfinished.
    offloads: AtomicU32,
}

/// A switch with one port for each number of lanes.
///
/// # Errors
/// When the process is out of descriptors or memory.
pub fn ports(lanes: &[usize], mtu: Option<u16>) -> io::Result<Vec<SwitchPort>> {
    let inlets: io::Result<Vec<Inlet>> = lanes.iter().map(|lanes| Inlet::new(*lanes)).collect();
    let shared = Arc::new(Shared {
        ports: inlets?.into(),
        table: Table::default(),
    });
    let port = |index| SwitchPort::new(shared.clone(), index, mtu);
    Ok((0..lanes.len()).map(port).collect())
}

impl Inlet {
    fn new(lanes: usize) -> io::Result<Self> {
        let lanes: io::Result<Vec<_>> = (0..lanes).map(|_| Ok(Arc::new(Mailbox::new()?))).collect();
        Ok(Self {
            lanes: lanes?.into(),
            open: AtomicU64::new(0),
            offloads: AtomicU32::new(0),
        })
    }

    /// The mailbox for what comes from a sender's lane number `from`, so that frames of one flow stay in
    /// order; `None` while no guest reads.
    fn lane(&self, from: usize) -> Option<&Arc<Mailbox>> {
        let open = self.open.load(Ordering::Acquire);
        let count = usize::try_from(open.count_ones()).unwrap_or(0);
        let wanted = from.checked_rem(count)?;
        let mut lanes = self.lanes.iter().enumerate();
        let lane = lanes
            .by_ref()
            .filter(|(index, _)| open & 1 << index != 0)
            .nth(wanted);
        lane.map(|(_, mailbox)| mailbox)
    }

    fn set_open(&self, lane: usize, open: bool) {
        let bit = 1 << lane;
        if open {
            self.open.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.open.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Frames that wait under other terms are discarded.
    fn agree(&self, offloads: Offloads, _: HeaderLen) {
        self.offloads.store(offloads.bits(), Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.discard());
    }

    /// What its guest takes unfinished.
    fn taken(&self) -> Offloads {
        Offloads::from_bits(self.offloads.load(Ordering::Acquire))
    }
}

//! What the queues of one device share: its address, its link, its active queue pairs.

mod pairs;
mod takeover;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vhost_daemon::log::Limiter;
use vhost_daemon::rate::Limits;
use vhost_daemon::session::FrontEnd;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ,
};

use crate::backend::{Offloads, Port};
use crate::capture::Taps;
use crate::config::{ConfigSpace, Mac};
use crate::control::Command;
use crate::driver::DriverMemory;
use crate::features::Negotiated;
use crate::filter::{Filter, Wishes};
use crate::metrics::Direction;
use pairs::Pairs;

/// `VHOST_F_LOG_ALL`, which is the front end's and not the driver's (vhost-user, "Migration").
const LOG_ALL: u64 = 1 << 26;

/// A network station: the device behind its queues.
pub struct Station<P> {
    port: P,
    mac: Mutex<Option<Mac>>,
    negotiated: AtomicU64,
    /// The port vanished.
    link_lost: AtomicBool,
    /// The network may have forgotten the guest: it should announce itself.
    announce: AtomicBool,
    pairs: Mutex<Pairs>,
    /// What received frames may leave undone.
    offloads: Mutex<Offloads>,
    /// What the driver has asked for, for when its rings go on in another connection.
    driver: DriverMemory,
    /// No connection before knew the driver's control ring.
    is_first: AtomicBool,
    front_end: Mutex<FrontEnd>,
    /// Whoever runs the daemon has taken the link down.
    unplugged: AtomicBool,
    /// What the driver wants to receive.
    filter: Filter,
    /// For frames to the guest and from it.
    limits: [Limits; 2],
    taps: Arc<Taps>,
    /// For lines that a guest can cause: about what the port refuses, and about drivers.
    refusals: Limiter,
    drivers: Limiter,
}

impl<P: Port> Station<P> {
    /// A station at `port`, with an address of its own or one that the guest chooses, and with what is known
    /// of its driver.
    pub fn new(port: P, mac: Option<Mac>, driver: DriverMemory) -> Self {
        let lanes = port.lanes();
        Self {
            port,
            mac: Mutex::new(mac),
            negotiated: AtomicU64::new(0),
            link_lost: AtomicBool::new(false),
            announce: AtomicBool::new(false),
            pairs: Mutex::new(Pairs::new(lanes)),
            offloads: Mutex::default(),
            driver,
            is_first: AtomicBool::new(true),
            front_end: Mutex::default(),
            unplugged: AtomicBool::new(false),
            filter: Filter::new(Wishes::new(mac, false)),
            limits: Default::default(),
            taps: Arc::default(),
            refusals: Limiter::default(),
            drivers: Limiter::default(),
        }
    }

    /// The network.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The address, if it is known.
    pub fn mac(&self) -> Option<Mac> {
        *self.mac.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was agreed on with the driver.
    pub fn negotiated(&self) -> Negotiated {
        Negotiated::new(self.negotiated.load(Ordering::Acquire))
    }

    /// The driver acknowledged `features`. A front end may say so again while queues run, as when
    /// it starts to log writes: then everything stays as the driver has set it since.
    pub fn acknowledged(&self, features: u64) {
        let features = features & !LOG_ALL;
        let before = self.negotiated.swap(features, Ordering::AcqRel);
        if before == features && self.receives() {
            return;
        }
        self.driver.negotiated();
        let agreed = self.negotiated();
        let offloads = agreed.guest_offloads() & self.port.offloads();
        self.set_offloads(offloads);
        let filters_vlans = agreed.has(VIRTIO_NET_F_CTRL_VLAN);
        let mac = self.mac();
        self.filter
            .change(|wishes| *wishes = Wishes::new(mac, filters_vlans));
        // With a control queue the driver says how many pairs it uses, and starts with one
        // (virtio 1.2, 5.1.5). Without, the front end enables the rings of those in use.
        let told = agreed.has(VIRTIO_NET_F_CTRL_VQ);
        self.use_pairs(Some(if told { 1 } else { self.port.lanes() }));
        if self.config().announce {
            self.tell_of_change();
        }
        // A guest can reset its device as often as it likes.
        if let Some(suppressed) = self.drivers.permit() {
            tracing::info!(
                features = format_args!("{features:#x}"),
                receive_offloads = %offloads,
                mergeable = agreed.mergeable(),
                multi_queue = agreed.has(VIRTIO_NET_F_MQ),
                suppressed,
                "driver acknowledged"
            );
        }
    }

    /// A front end is there: changes of the configuration are told to it.
    pub fn connected(&self, front_end: &FrontEnd) {
        *self
            .front_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = front_end.clone();
    }

    /// The guest gets a configuration interrupt: status or announcement have changed.
    fn tell_of_change(&self) {
        self.front_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .config_changed();
    }

    /// Another front end may bring another driver: it starts anew.
    pub fn disconnected(&self) {
        self.negotiated.store(0, Ordering::Release);
        self.announce.store(true, Ordering::Relaxed);
        self.is_first.store(true, Ordering::Relaxed);
    }

    /// The configuration space as it is now.
    pub fn config(&self) -> ConfigSpace {
        let agreed = self.negotiated();
        let announce = agreed.has(VIRTIO_NET_F_GUEST_ANNOUNCE)
            && agreed.has(VIRTIO_NET_F_CTRL_VQ)
            && self.announce.load(Ordering::Relaxed);
        ConfigSpace {
            mac: self.mac().unwrap_or_default(),
            link_up: !self.link_lost.load(Ordering::Relaxed) && !self.is_unplugged(),
            announce,
            max_pairs: u16::try_from(self.port.lanes()).unwrap_or(u16::MAX),
            mtu: self.port.mtu().unwrap_or_default(),
        }
    }

    /// The port has vanished: the link is down. Logged once.
    pub fn lose_link(&self) {
        if !self.link_lost.swap(true, Ordering::Relaxed) {
            tracing::error!("the network's side has vanished: link down, frames are dropped");
            self.tell_of_change();
        }
    }

    /// Carries a control command out; `false` answers it with an error.
    pub fn obey(&self, command: &Command) -> bool {
        let agreed = self.negotiated();
        if !agreed.has(command.needs()) {
            return false;
        }
        match command {
            Command::ReceiveMode { mode, on } => self.wish(|wishes| wishes.set_mode(*mode, *on)),
            Command::MacTable { unicast, multicast } => {
                self.wish(|wishes| wishes.set_table(unicast, multicast))
            }
            Command::Vlan { wanted, id } => self.wish(|wishes| wishes.set_vlan(*id, *wanted)),
            Command::MacAddress(mac) => {
                *self.mac.lock().unwrap_or_else(PoisonError::into_inner) = Some(*mac);
                self.wish(|wishes| wishes.set_own(*mac))
            }
            Command::AnnounceAck => {
                self.announce.store(false, Ordering::Relaxed);
                true
            }
            Command::QueuePairs(count) => {
                let count = usize::from(*count);
                let possible = (1..=self.port.lanes()).contains(&count);
                if possible {
                    self.use_pairs(Some(count));
                }
                possible
            }
            Command::GuestOffloads(wanted) => agreed
                .chosen_offloads(*wanted)
                .is_some_and(|offloads| self.set_offloads(offloads & self.port.offloads())),
        }
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) -> bool {
        self.filter.change(change);
        true
    }

    /// What the driver wants to receive.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The rate limits of one direction.
    pub fn limits(&self, direction: Direction) -> &Limits {
        let [receive, transmit] = &self.limits;
        match direction {
            Direction::Receive => receive,
            Direction::Transmit => transmit,
        }
    }

    /// Who wants copies of frames.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// Whether the link has been taken down.
    pub fn is_unplugged(&self) -> bool {
        self.unplugged.load(Ordering::Relaxed)
    }

    /// Takes the link down, or up again: the guest is told, and asked to announce itself.
    pub fn plug(&self, up: bool) {
        if self.unplugged.swap(!up, Ordering::Relaxed) != up {
            return;
        }
        if up {
            self.announce.store(true, Ordering::Relaxed);
        }
        self.tell_of_change();
    }

    fn set_offloads(&self, offloads: Offloads) -> bool {
        let header = self.negotiated().header_len();
        *self.offloads.lock().unwrap_or_else(PoisonError::into_inner) = offloads;
        let set = self.port.agree(offloads, header);
        // A guest can ask for other offloads as often as it likes.
        if let Err(error) = &set
            && let Some(suppressed) = self.refusals.permit()
        {
            tracing::error!(%error, %offloads, suppressed, "the port does not take the agreed offloads");
        }
        set.is_ok()
    }
}

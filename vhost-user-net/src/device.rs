//! The virtio network device (virtio 1.2, 5.1) as the session runs it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost_daemon::Device;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::queue::{InFlightFile, InFlightLog};
use vhost_daemon::rate::Rates;
use vhost_daemon::session::FrontEnd;

use crate::backend::Port;
use crate::capture::Capture;
use crate::commands::{LinkState, PortState};
use crate::config::Mac;
use crate::driver::{DriverFile, DriverMemory};
use crate::features::{self, Negotiated};
use crate::layout::{self, Role};
use crate::metrics::{Direction, FrameMetrics};
use crate::station::Station;
use crate::worker::{Control, NetWorker, Receive, Throttle, Transmit};

/// Largest queue.
pub(crate) const MAX_QUEUE_SIZE: u16 = 1024;

/// A network device at a port.
pub struct NetDevice<P> {
    station: Arc<Station<P>>,
    /// Receive buffers that are in use, for the next process.
    in_flight: Option<InFlightFile>,
    has_mac: bool,
    metrics: Arc<Metrics>,
    connected: AtomicBool,
}

impl<P: Port> NetDevice<P> {
    /// A device at `port`. Without `mac` the guest or the front end chooses the address. What its driver
    /// would not tell the next process is in `state`, if there is any.
    pub fn new(port: P, mac: Option<Mac>, metrics: Arc<Metrics>, state: Option<PortFiles>) -> Self {
        let (driver, in_flight) = match state {
            Some(files) => (
                DriverMemory::in_file(files.driver, port.lanes()),
                Some(files.in_flight),
            ),
            None => Default::default(),
        };
        Self {
            station: Arc::new(Station::new(port, mac, driver)),
            in_flight,
            has_mac: mac.is_some(),
            metrics,
            connected: AtomicBool::new(false),
        }
    }
}

/// What of a port survives the process.
pub struct PortFiles {
    /// Receive buffers that are in use, a log for each pair.
    pub in_flight: InFlightFile,
    /// What the driver has asked for.
    pub driver: DriverFile,
}

/// What can be asked of a device while it runs.
pub trait ControlledPort: Send + Sync {
    /// How it is.
    fn state(&self) -> PortState;

    /// Sets the rate limits of one direction.
    fn limit(&self, direction: Direction, rates: Rates);

    /// Takes the link up or down.
    fn plug(&self, state: LinkState);

    /// Begins a capture of the first `snap` bytes of each frame; `None` if there are enough already.
    fn capture(&self, snap: usize) -> Option<Capture>;
}

impl<P: Port> ControlledPort for NetDevice<P> {
    fn state(&self) -> PortState {
        let station = &self.station;
        let config = station.config();
        let rates = |direction| station.limits(direction).rates().into();
        PortState {
            connected: self.connected.load(Ordering::Relaxed),
            link: match config.link_up {
                true => LinkState::Up,
                false => LinkState::Down,
            },
            mac: station.mac().map(|mac| mac.to_string()),
            mtu: station.port().mtu(),
            queue_pairs: [station.port().lanes(), station.pairs_in_use()],
            receive_limit: rates(Direction::Receive),
            transmit_limit: rates(Direction::Transmit),
        }
    }

    fn limit(&self, direction: Direction, rates: Rates) {
        self.station.limits(direction).set(rates);
    }

    fn plug(&self, state: LinkState) {
        self.station.plug(state == LinkState::Up);
    }

    fn capture(&self, snap: usize) -> Option<Capture> {
        self.station.taps().open(snap)
    }
}

impl<P: Port> Device for NetDevice<P> {
    type Worker = NetWorker<P>;

    fn queues(&self) -> usize {
        layout::queues(self.station.port().lanes())
    }

    fn max_queue_size(&self) -> u16 {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        let port = self.station.port();
        let mtu = port.mtu().is_some();
        features::offered(port.offloads(), port.lanes(), self.has_mac, mtu)
    }

    /// QEMU 7.2 adds each memory region once for each queue pair; with one table for all it works.
    fn unsuitable_protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    /// Frames fill receive buffers in whatever order; those sent and commands complete in the ring's.
    fn in_flight_log(&self, index: usize) -> Option<InFlightLog> {
        let station = &self.station;
        match layout::role(index, station.port().lanes(), station.negotiated()) {
            Role::Receive(pair) => self.in_flight.as_ref().map(|file| file.queue(pair)),
            Role::Transmit(_) | Role::Control => None,
        }
    }

    fn config(&self) -> Vec<u8> {
        self.station.config().to_bytes()
    }

    fn acknowledged(&self, features: u64) {
        self.station.acknowledged(features);
    }

    fn connected(&self, front_end: &FrontEnd) {
        self.connected.store(true, Ordering::Relaxed);
        self.station.connected(front_end);
    }

    fn disconnected(&self) {
        self.connected.store(false, Ordering::Relaxed);
        self.station.disconnected();
    }

    fn worker(&self, index: usize, features: u64) -> io::Result<NetWorker<P>> {
        let agreed = Negotiated::new(features);
        let station = self.station.clone();
        let metrics = |direction| FrameMetrics::new(&self.metrics, index, direction);
        Ok(match layout::role(index, station.port().lanes(), agreed) {
            Role::Receive(pair) => {
                let source = station.port().source(pair)?;
                let metrics = metrics(Direction::Receive);
                let receive = Receive::new(station, source, pair, agreed, metrics)?;
                NetWorker::Receive(Box::new(receive))
            }
            Role::Transmit(pair) => NetWorker::Transmit(Transmit {
                sink: station.port().sink(pair)?,
                header_len: agreed.header_len().bytes(),
                metrics: metrics(Direction::Transmit),
                batch: Vec::new(),
                throttle: Throttle::new(Direction::Transmit),
                station,
            }),
            Role::Control => NetWorker::Control(Control { station }),
        })
    }
}

//! The virtio network device (virtio 1.2, 5.1) as the session runs it.

use std::io;
use std::sync::Arc;

use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost_daemon::Device;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::session::FrontEnd;

use crate::backend::Port;
use crate::config::Mac;
use crate::features::{self, Negotiated};
use crate::layout::{self, Role};
use crate::metrics::{Direction, FrameMetrics};
use crate::station::Station;
use crate::worker::{Control, NetWorker, Receive, Transmit};

/// A network device at a port.
pub struct NetDevice<P> {
    station: Arc<Station<P>>,
    has_mac: bool,
    metrics: Arc<Metrics>,
}

impl<P: Port> NetDevice<P> {
    /// A device at `port`. Without `mac` the guest or the front end chooses the address.
    pub fn new(port: P, mac: Option<Mac>, metrics: Arc<Metrics>) -> Self {
        Self {
            station: Arc::new(Station::new(port, mac)),
            has_mac: mac.is_some(),
            metrics,
        }
    }
}

impl<P: Port> Device for NetDevice<P> {
    type Worker = NetWorker<P>;

    fn queues(&self) -> usize {
        layout::queues(self.station.port().lanes())
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

    fn config(&self) -> Vec<u8> {
        self.station.config().to_bytes()
    }

    fn acknowledged(&self, features: u64) {
        self.station.acknowledged(features);
    }

    fn connected(&self, front_end: &FrontEnd) {
        self.station.connected(front_end);
    }

    fn disconnected(&self) {
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
                NetWorker::Receive(Receive::new(station, source, pair, agreed, metrics)?)
            }
            Role::Transmit(pair) => NetWorker::Transmit(Transmit {
                sink: station.port().sink(pair)?,
                header_len: agreed.header_len().bytes(),
                metrics: metrics(Direction::Transmit),
                batch: Vec::new(),
                station,
            }),
            Role::Control => NetWorker::Control(Control { station }),
        })
    }
}

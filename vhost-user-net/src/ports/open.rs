//! From the ports' descriptions to threads that serve them.
//!
//! Everything that needs privileges happens here, before the first front end is served.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use vhost_daemon::listen::Endpoint;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::session::{ServeError, Server, Service, Serving};

use super::{Common, Ports, Served, StateError};
use crate::backend::{Passt, PasstError, Port, Tap, TapError, switch};
use crate::device::{ControlledPort, MAX_QUEUE_SIZE, NetDevice};
use crate::options::{Network, PortConfig};

/// What a switch tells its guests, where nobody says otherwise.
const SWITCH_MTU: u16 = 1500;

/// A port cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// passt.
    #[error(transparent)]
    Passt(#[from] PasstError),
    /// The switch.
    #[error("the switch cannot be made")]
    Switch(#[source] io::Error),
    /// The state directory.
    #[error("--state-dir cannot be used")]
    State(#[from] StateError),
    /// The socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The thread.
    #[error("the port's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// A port whose network and socket are open.
pub struct Opened {
    name: String,
    network: String,
    socket: Option<PathBuf>,
    /// Something has to be connected to again when it goes.
    connects: bool,
    port: Arc<dyn ControlledPort>,
    metrics: Arc<Metrics>,
    start: Box<dyn FnOnce(Ended) -> io::Result<Serving>>,
}

type Ended = Box<dyn FnOnce(Result<(), ServeError>) + Send>;

/// Opens what `configs` name.
///
/// # Errors
/// See [`OpenError`].
pub fn open(configs: Vec<PortConfig>, common: &Common) -> Result<Vec<Opened>, OpenError> {
    let alone = configs.len() == 1;
    let on_switch = configs
        .iter()
        .filter(|port| matches!(port.network, Network::Switch));
    let lanes: Vec<usize> = on_switch.clone().map(|port| port.pairs).collect();
    let mtu = on_switch.filter_map(|port| port.mtu).min();
    let ports = switch::ports(&lanes, Some(mtu.unwrap_or(SWITCH_MTU)));
    let mut switch_ports = ports.map_err(OpenError::Switch)?.into_iter();
    let mut opened = Vec::new();
    for config in configs {
        let (mac, name, endpoint) = (config.mac, config.name, config.endpoint);
        let metrics = match alone {
            true => Metrics::default(),
            false => Metrics::of_device("port", &name),
        };
        let site = Site {
            name,
            endpoint,
            mac,
            metrics: Arc::new(metrics),
            connects: matches!(config.network, Network::Passt(_)),
            common,
        };
        opened.push(match config.network {
            Network::Tap(source) => {
                let tap = Tap::open(source, config.pairs, config.mtu)?;
                let network = format!("tap {}", tap.name());
                site.open(tap, network)?
            }
            Network::Passt(path) => {
                let network = format!("passt {}", path.display());
                site.open(Passt::connect(&path, config.mtu)?, network)?
            }
            Network::Switch => match switch_ports.next() {
                Some(port) => site.open(port, "switch".to_owned())?,
                None => return Err(OpenError::Switch(io::ErrorKind::NotFound.into())),
            },
        });
    }
    Ok(opened)
}

/// Where a port is put up.
struct Site<'a> {
    name: String,
    endpoint: Endpoint,
    mac: Option<crate::config::Mac>,
    metrics: Arc<Metrics>,
    /// The network has to be connected to again when it goes.
    connects: bool,
    common: &'a Common,
}

impl Site<'_> {
    fn open<P: Port>(self, port: P, network: String) -> Result<Opened, OpenError> {
        tracing::info!(
            port = self.name,
            network,
            queue_pairs = port.lanes(),
            offloads = %port.offloads(),
            mtu = port.mtu(),
            "the network is open"
        );
        let state_dir = self.common.state_dir.as_ref();
        let files = state_dir.map(|it| it.files(&self.name, port.lanes(), MAX_QUEUE_SIZE));
        let files = files.transpose()?;
        let device = Arc::new(NetDevice::new(port, self.mac, self.metrics.clone(), files));
        let socket = self.endpoint.path();
        let connects = self.connects || matches!(self.endpoint, Endpoint::FrontEnd(_));
        let service = Service {
            endpoint: self.endpoint,
            once: self.common.once,
            poll: self.common.poll,
            metrics: self.metrics.clone(),
        };
        let server = Server::open(&device, service)?.with_filters(self.common.filters.clone());
        Ok(Opened {
            name: self.name,
            network,
            socket,
            connects,
            port: device,
            metrics: self.metrics,
            start: Box::new(|ended| Serving::start(server, ended)),
        })
    }
}

impl Opened {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its socket's file, if it is not inherited.
    pub fn socket(&self) -> Option<PathBuf> {
        self.socket.clone()
    }

    /// Whether something has to be connected to again when it goes.
    pub fn connects(&self) -> bool {
        self.connects
    }

    /// Serves it from a thread of its own, which tells `ports` when it ends.
    pub(super) fn serve(self, ports: &Arc<Ports>) -> Result<Served, OpenError> {
        let (ports, name) = (Arc::downgrade(ports), self.name);
        let ended = Box::new(move |result| {
            if let Some(ports) = ports.upgrade() {
                ports.ended(&name, result);
            }
        });
        let serving = (self.start)(ended).map_err(OpenError::Thread)?;
        Ok(Served {
            port: self.port,
            serving,
            metrics: self.metrics,
            network: self.network,
            socket: self.socket,
        })
    }
}

//! The ports of one process: opened together, looked up by name while they are served.

mod open;
mod state_dir;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{RecvFlags, recv};
use vhost_daemon::control::{Controlled, Done, Follow};
use vhost_daemon::metrics::{Metrics, Registry};
use vhost_daemon::sandbox::seccomp::ThreadFilters;
use vhost_daemon::session::{ServeError, Serving};
use vhost_daemon::shutdown::Shutdown;
use vhost_daemon::worker::PollPolicy;

use crate::capture;
use crate::commands::{Command, Passed, PortStats, Refusal};
use crate::device::ControlledPort;
use crate::metrics::Direction;
pub use open::{OpenError, Opened, open};
pub use state_dir::{StateDir, StateError};

/// What all ports of a process share.
pub struct Common {
    /// Where the next process finds what drivers would not tell it.
    pub state_dir: Option<StateDir>,
    /// Whether a port goes with its first front end.
    pub once: bool,
    /// Polling of the queues' threads.
    pub poll: PollPolicy,
    /// Where the ports' metrics are shown.
    pub metrics: Arc<Registry>,
    /// Requested when the last port ends by itself.
    pub shutdown: Arc<Shutdown>,
    /// What each thread may do.
    pub filters: Arc<ThreadFilters>,
}

/// All ports that are being served.
pub struct Ports {
    shutdown: Arc<Shutdown>,
    table: Mutex<BTreeMap<String, Served>>,
}

/// One port.
struct Served {
    port: Arc<dyn ControlledPort>,
    serving: Serving,
    metrics: Arc<Metrics>,
    network: String,
    socket: Option<PathBuf>,
}

impl Ports {
    /// Serves ports from now on, each from a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(opened: Vec<Opened>, common: &Common) -> Result<Arc<Self>, OpenError> {
        let ports = Arc::new(Self {
            shutdown: common.shutdown.clone(),
            table: Mutex::default(),
        });
        for port in opened {
            let name = port.name().to_owned();
            // Held, so that a port that ends at once is found.
            let mut table = ports.table();
            let served = port.serve(&ports)?;
            common.metrics.add(served.metrics.clone());
            table.insert(name, served);
        }
        Ok(ports)
    }

    /// Ends every port: their connections end, their queues are drained, their sockets go.
    pub fn close(&self) {
        let ports = std::mem::take(&mut *self.table());
        ports.values().for_each(|port| port.serving.request_stop());
        ports.into_values().for_each(|port| port.serving.stop());
    }

    /// A port's thread has come to its end.
    fn ended(&self, name: &str, result: Result<(), ServeError>) {
        if let Err(error) = result {
            let error: &dyn std::error::Error = &error;
            tracing::error!(port = name, error, "the port is served no more");
        }
        let mut table = self.table();
        if table.remove(name).is_some() && table.is_empty() {
            self.shutdown.request();
        }
    }

    fn obey(&self, command: Command) -> Result<Done<Vec<PortStats>>, Refusal> {
        match command {
            Command::Stats { port: None } => {
                let table = self.table();
                let all: Vec<_> = table.iter().map(|(name, it)| it.stats(name)).collect();
                Ok(all.into())
            }
            Command::Stats { port } => self.on(port.as_deref(), |_| Ok(())),
            Command::Link { state, port } => self.on(port.as_deref(), |port| {
                port.plug(state);
                Ok(())
            }),
            Command::Limit(limit) => self.on(limit.port.as_deref(), |port| {
                for direction in [Direction::Receive, Direction::Transmit] {
                    if limit.direction.is_none_or(|only| only == direction) {
                        port.limit(direction, limit.rates());
                    }
                }
                Ok(())
            }),
            Command::Capture(wanted) => {
                let mut follow = None;
                let mut done = self.on(wanted.port.as_deref(), |port| {
                    let capture = port.capture(wanted.snap);
                    let capture = capture.ok_or(Refusal::TooManyCaptures)?;
                    follow = Some(send_copies(capture, wanted.frames));
                    Ok(())
                })?;
                done.follow = follow;
                Ok(done)
            }
        }
    }

    /// Does `action` on the port `name`, or the only one; then shows it.
    fn on(
        &self,
        name: Option<&str>,
        action: impl FnOnce(&dyn ControlledPort) -> Result<(), Refusal>,
    ) -> Result<Done<Vec<PortStats>>, Refusal> {
        let table = self.table();
        let (name, served) = match name {
            Some(name) => table
                .get_key_value(name)
                .ok_or_else(|| Refusal::UnknownPort(name.to_owned()))?,
            None => match table.first_key_value() {
                Some(only) if table.len() == 1 => only,
                _ => {
                    let names: Vec<_> = table.keys().cloned().collect();
                    return Err(Refusal::WhichPort(names.join(", ")));
                }
            },
        };
        action(&*served.port)?;
        Ok(vec![served.stats(name)].into())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Served>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies go to the client until there are enough, or it has gone.
fn send_copies(capture: capture::Capture, frames: u64) -> Follow {
    Box::new(move |stream: &UnixStream| {
        let gone = || {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            matches!(recv(stream, &mut [0; 1], flags), Ok((0, _)))
        };
        let mut out = stream;
        capture.write_to(&mut out, frames, gone)
    })
}

impl Served {
    fn stats(&self, name: &str) -> PortStats {
        let passed = |direction: Direction| {
            let label = format!("direction=\"{}\"", direction.name());
            let total = |name| self.metrics.total(name, &label);
            Passed {
                packets: total("net_frames_total"),
                bytes: total("net_bytes_total"),
                dropped: total("net_drops_total"),
            }
        };
        PortStats {
            port: name.to_owned(),
            network: self.network.clone(),
            socket: self.socket.clone(),
            state: self.port.state(),
            received: passed(Direction::Receive),
            transmitted: passed(Direction::Transmit),
        }
    }
}

impl Controlled for Ports {
    type Command = Command;
    type Report = Vec<PortStats>;
    type Refusal = Refusal;

    fn carry_out(self: &Arc<Self>, command: Command) -> Result<Done<Vec<PortStats>>, Refusal> {
        self.obey(command)
    }
}

//! A pod: what it shall be, its start, and the running one.

mod config;
mod disks;
#[cfg(any(test, feature = "played"))]
pub mod played;
mod sandbox;
mod start;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringside_config::Config;
use tokio::net::UnixStream;

pub use config::{Files, HypervisorChoice, PodConfig, ROOT_TAG};

use crate::agent::Agent;
use crate::daemons::Reconnects;
use crate::directory::PodDirectory;
use crate::network::PodNetwork;
use crate::parts::Parts;
use crate::share::Share;
use crate::{PodError, stream};
use disks::LaterDisks;

/// A machine that runs, with an agent that answers.
#[derive(Debug)]
pub struct Pod {
    directory: PodDirectory,
    parts: Arc<Parts>,
    share: Share,
    agent: Agent,
    vsock: PathBuf,
    streams: AtomicU64,
    configuration: Config,
    reconnects: Reconnects,
    disks: LaterDisks,
    /// How long the guest may take to write back and switch itself off.
    patience: Duration,
    /// Held for as long as the daemons that use it.
    network: Mutex<Option<PodNetwork>>,
}

impl Pod {
    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The shared directory. A pod without [`Files::Bound`] has none: nothing can be added.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Its run directory.
    #[must_use]
    pub fn directory(&self) -> &PodDirectory {
        &self.directory
    }

    /// The hypervisor's process id: what stands on the host for any process of the pod.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.parts.hypervisor()
    }

    /// Opens a stream under a name that no other has.
    ///
    /// # Errors
    /// When the agent cannot be reached.
    pub async fn open_stream(&self) -> Result<(String, UnixStream), PodError> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let name = format!("s{number}");
        let stream = stream::open(&self.vsock, &name).await;
        Ok((name, stream.map_err(PodError::Stream)?))
    }

    /// How its parts are run.
    #[must_use]
    pub fn configuration(&self) -> &Config {
        &self.configuration
    }

    /// Ends everything and removes the pod's directory.
    pub async fn stop(&self) {
        self.stop_within(self.patience).await;
    }

    /// The same, with so much time for the guest to write back what it holds of its disks.
    pub async fn stop_within(&self, patience: Duration) {
        tokio::select! {
            // The answer may be lost; what counts is that the machine ends.
            () = self.agent.shutdown(patience) => {
                self.parts.wait_for_hypervisor(self.patience.min(patience)).await;
            }
            _ = self.parts.wait_for_hypervisor(patience) => {}
        }
        self.kill().await;
    }

    /// Ends everything without asking the guest, and removes the pod's directory.
    pub async fn kill(&self) {
        self.parts.stop().await;
        let network = self.network.lock().map(|mut network| network.take());
        drop(network);
        discard(Some(&self.share), &self.directory);
    }
}

fn discard(share: Option<&Share>, directory: &PodDirectory) {
    let gone = share.map_or(Ok(()), Share::destroy);
    if let Err(error) = gone.and_then(|()| directory.remove()) {
        let path = directory.path().display();
        tracing::warn!("{path} is left behind: {}", crate::chain(&error));
    }
}

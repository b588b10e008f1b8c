//! Guests that do not tell the end of what was killed, and do not let go of what has ended: containerd must be able to
//! get rid of a container whatever its guest answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use containerd_shim::protos::ttrpc::Error;
use ringside_pod::Pod;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::answer::{failure, is_gone};
use super::container::Container;
use super::process::Process;
use crate::shim::KILLED;

/// How long the end of a killed process may take to be told. It may be waiting for a slow disk; containerd's CRI waits
/// two minutes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a guest has to let go of what it hid the end of. containerd's CRI gives the whole call ten seconds.
pub(super) const LATE: Duration = Duration::from_secs(3);

impl Shared {
    /// Waits for the end of a process that is about to be killed. If it is not told in time, the process counts as
    /// ended, and the machine is ended with its first container or its only one.
    pub(super) fn expect_end(self: &Arc<Self>, container: Arc<Container>, process: Arc<Process>) {
        if process.is_awaited.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if timeout(shared.patience, process.ended()).await.is_err() {
                shared.give_up(&container, process).await;
            }
        });
    }

    async fn give_up(&self, container: &Container, process: Arc<Process>) {
        let (name, patience) = (process.name(), self.patience);
        let reason =
            format!("{patience:?} after process {name} was killed the guest has not told its end");
        if !process.exec.is_empty() {
            tracing::error!("{reason}: it counts as ended");
            self.assume_end(process);
        } else if container.is_first || self.containers().len() == 1 {
            self.ended(reason).await;
        } else {
            tracing::error!("{reason}: container {} counts as ended", container.id);
            for process in container.processes() {
                self.assume_end(process);
            }
        }
    }

    fn assume_end(&self, process: Arc<Process>) {
        process.is_given_up.store(true, Ordering::Relaxed);
        self.end_process(process, KILLED);
    }

    /// Has the guest take a container away that has ended, which writes its disks back and may take long.
    ///
    /// # Errors
    /// When it cannot, and has not been asked for as long as it has time for a killed process.
    pub(super) async fn delete_in_guest(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<(), Error> {
        let first_asked = *container.first_deletion.get_or_init(Instant::now);
        let deletion = pod.agent().delete(&container.id);
        let first = container.process("");
        if first.is_ok_and(|first| first.is_given_up.load(Ordering::Relaxed)) {
            if timeout(LATE, deletion).await.is_err() {
                tracing::warn!("container {} may stay in the guest", container.id);
            }
            return Ok(());
        }
        match deletion.await {
            // A deletion before this one may have come so far, and no further.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) if first_asked.elapsed() > self.patience => {
                tracing::warn!("container {} may stay in the guest: {error}", container.id);
                Ok(())
            }
            deleted => deleted.map_err(failure),
        }
    }
}

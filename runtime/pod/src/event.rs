//! What happens in a pod without being asked for.

mod poll;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::time::{Instant, timeout_at};

use crate::PodError;
use crate::agent::Agent;
use crate::parts::{PartEnd, Parts, Role};

/// How long to look for a cause when the agent is gone: a part's end soon shows.
const CAUSE: Duration = Duration::from_millis(300);

/// How long to look for the cause when a part ends.
pub(crate) const ENDS_TOGETHER: Duration = Duration::from_millis(150);

/// Something that the pod's owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodEvent {
    /// A process in the guest ended.
    Exit {
        /// Its container.
        container: String,
        /// Which further process of the container; empty: its first.
        exec: String,
        /// Exit code, or 128 + the signal that ended it.
        code: u32,
    },
    /// The kernel killed something in this container for want of memory.
    OutOfMemory {
        /// The container.
        container: String,
    },
    /// The machine is gone, and with it every process in it. The last event.
    Ended {
        /// Why, in a sentence or more.
        reason: String,
    },
}

/// A daemon that ends more often than so within [`MEMORY`] cannot be helped by starting it again.
const MOST_RESTARTS: usize = 5;
const MEMORY: Duration = Duration::from_secs(60);

/// Waited before a daemon is started again that ended a moment ago, for each time: the kernel may
/// need as long to take back what the last one had.
const BREATH: Duration = Duration::from_millis(200);

/// Events that may wait for the pod's owner. While as many do, the agent is not asked for more, and keeps them.
pub(crate) const MOST_WAITING: usize = 256;

/// Tells `owner` what the agent and the parts tell, until the pod has ended. A daemon whose device
/// the machine connects again is started again; without any other the machine has ended, for its
/// guest would wait for ever.
pub(crate) async fn tell(
    agent: Agent,
    parts: Arc<Parts>,
    mut ends: UnboundedReceiver<PartEnd>,
    owner: Sender<PodEvent>,
) {
    let mut restarts = Vec::new();
    let reason = {
        let mut agent = std::pin::pin!(poll::pass_on(&agent, &owner));
        loop {
            tokio::select! {
                Some(end) = next(&mut ends) => {
                    if let Err(reason) = restart(&parts, end, &mut ends, &mut restarts).await {
                        break reason;
                    }
                }
                lost = &mut agent => {
                    break match tokio::time::timeout(CAUSE, next(&mut ends)).await {
                        Ok(Some(end)) => cause(&parts, end, &mut ends).await.to_string(),
                        _ => format!("the guest's agent is gone: {lost}"),
                    };
                }
            }
        }
    };
    // Nobody may want to know any more.
    let _ = owner.send(PodEvent::Ended { reason }).await;
}

/// The next end that is the pod's matter.
async fn next(ends: &mut UnboundedReceiver<PartEnd>) -> Option<PartEnd> {
    loop {
        let end = ends.recv().await?;
        if end.role != Role::Probation {
            return Some(end);
        }
    }
}

/// Starts a part again, if that helps; otherwise says why the pod has ended.
async fn restart(
    parts: &Parts,
    end: PartEnd,
    ends: &mut UnboundedReceiver<PartEnd>,
    restarts: &mut Vec<(String, Instant)>,
) -> Result<(), String> {
    if parts.was_dismissed(&end) {
        return Ok(());
    }
    restarts.retain(|(_, at)| at.elapsed() < MEMORY);
    let before = restarts
        .iter()
        .filter(|(part, _)| *part == end.part)
        .count();
    if end.role != Role::Restarted || parts.is_stopping() || before >= MOST_RESTARTS {
        return Err(cause(parts, end, ends).await.to_string());
    }
    tracing::warn!("{}; it is started again", parts.obituary(&end));
    restarts.push((end.part.clone(), Instant::now()));
    tokio::time::sleep(BREATH * u32::try_from(before).unwrap_or_default()).await;
    // Its device may have gone in the meantime.
    if parts.was_dismissed(&end) {
        return Ok(());
    }
    parts.restart(&end).map_err(|error| crate::chain(&error))
}

/// One part's end soon ends others. The first that did not end with 0 is the cause, else the
/// hypervisor: a daemon may end without complaint because its machine did.
pub(crate) async fn cause(
    parts: &Parts,
    first: PartEnd,
    ends: &mut UnboundedReceiver<PartEnd>,
) -> PodError {
    let mut all = vec![first];
    let deadline = Instant::now() + ENDS_TOGETHER;
    while let Ok(Some(end)) = timeout_at(deadline, next(ends)).await {
        all.push(end);
    }
    let failed = all.iter().position(|end| !end.status.success());
    let hypervisor = || all.iter().position(|end| end.role == Role::Hypervisor);
    let cause = failed.or_else(hypervisor).unwrap_or_default();
    parts.obituary(&all[cause])
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::directory::PodDirectory;

    #[tokio::test]
    async fn a_disk_that_goes_before_its_daemon_comes_again_does_not_end_the_pod() {
        let root = tempfile::tempdir().unwrap();
        let directory = PodDirectory::create(root.path(), "p").unwrap();
        let (sender, mut ends) = unbounded_channel();
        let parts = Parts::new(directory, sender);
        let (command, role) = (Command::new("false"), Role::Restarted);
        parts.start("blk", command, &[], role).unwrap();
        let end = ends.recv().await.unwrap();
        // Not the first time, so it is waited for a moment.
        let mut restarts = vec![("blk".to_owned(), Instant::now())];
        let (restarted, ()) = tokio::join!(
            restart(&parts, end, &mut ends, &mut restarts),
            parts.dismiss("blk")
        );
        assert_eq!(restarted, Ok(()));
    }
}

//! What happens in a pod without being asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside_protocol::agent::event::What;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::agent::Agent;
use crate::parts::{PartEnd, Parts, Role};

/// How long to look for a cause when the agent is gone: a part's end soon shows.
const CAUSE: Duration = Duration::from_millis(300);

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

/// Tells `owner` what the agent and the parts tell, until the pod has ended. A daemon whose device
/// the machine connects again is started again; without any other the machine has ended, for its
/// guest would wait for ever.
pub(crate) async fn tell(
    agent: Agent,
    parts: Arc<Parts>,
    mut ends: UnboundedReceiver<PartEnd>,
    owner: UnboundedSender<PodEvent>,
) {
    let mut restarts = Vec::new();
    let reason = {
        let mut agent = std::pin::pin!(pass_on(&agent, &owner));
        loop {
            tokio::select! {
                Some(end) = ends.recv() => {
                    if let Err(reason) = restart(&parts, &end, &mut restarts).await {
                        break reason;
                    }
                }
                lost = &mut agent => {
                    break match tokio::time::timeout(CAUSE, ends.recv()).await {
                        Ok(Some(end)) => cause(&parts, &end),
                        _ => format!("the guest's agent is gone: {lost}"),
                    };
                }
            }
        }
    };
    // Nobody may want to know any more.
    let _ = owner.send(PodEvent::Ended { reason });
}

/// Starts a part again, if that helps; otherwise says why the pod has ended.
async fn restart(
    parts: &Parts,
    end: &PartEnd,
    restarts: &mut Vec<(String, Instant)>,
) -> Result<(), String> {
    if parts.was_dismissed(end) {
        return Ok(());
    }
    restarts.retain(|(_, at)| at.elapsed() < MEMORY);
    let before = restarts
        .iter()
        .filter(|(part, _)| *part == end.part)
        .count();
    if end.role != Role::Restarted || parts.is_stopping() || before >= MOST_RESTARTS {
        return Err(cause(parts, end));
    }
    tracing::warn!("{}; it is started again", parts.obituary(end));
    restarts.push((end.part.clone(), Instant::now()));
    tokio::time::sleep(BREATH * u32::try_from(before).unwrap_or_default()).await;
    parts.restart(end).map_err(|error| crate::chain(&error))
}

fn cause(parts: &Parts, end: &PartEnd) -> String {
    if end.role == Role::Hypervisor && end.status.success() {
        return "its guest switched itself off".to_owned();
    }
    parts.obituary(end).to_string()
}

/// Passes the agent's events on until it is lost; returns why it is.
async fn pass_on(agent: &Agent, owner: &UnboundedSender<PodEvent>) -> String {
    let mut last = 0;
    loop {
        let events = match agent.events(last).await {
            Ok(answer) => answer.events,
            Err(error) => return crate::chain(&error),
        };
        for event in events {
            last = last.max(event.number);
            let told = match event.what {
                Some(What::Exit(exit)) => PodEvent::Exit {
                    container: exit.container,
                    exec: exit.exec,
                    code: exit.code,
                },
                Some(What::OutOfMemory(killed)) => PodEvent::OutOfMemory {
                    container: killed.container,
                },
                // A newer agent may know more.
                _ => continue,
            };
            let _ = owner.send(told);
        }
    }
}

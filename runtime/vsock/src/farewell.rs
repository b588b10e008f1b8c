//! The last bytes of a guest that has gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::Connection;

/// How long a program may take nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long all of them may take: whoever stops the daemon waits for it.
const LIMIT: Duration = Duration::from_secs(5);
/// How long to wait at once.
const STEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Lets programs take what the guest had sent and their sockets had no room for. No queue runs.
pub fn pass_on_rest(connections: &[Arc<Connection>]) {
    let behind = |connection: &&Arc<Connection>| connection.outbound().behind() > 0;
    let mut slow: Vec<_> = connections.iter().filter(behind).collect();
    let begun = Instant::now();
    let mut moved = begun;
    while !slow.is_empty() && begun.elapsed() < LIMIT && moved.elapsed() < PATIENCE {
        let sockets = slow.iter().map(|connection| &connection.socket);
        let mut waiting: Vec<_> = sockets
            .map(|socket| PollFd::new(socket, PollFlags::OUT))
            .collect();
        if poll(&mut waiting, Some(&STEP)).is_err() {
            continue;
        }
        for connection in &slow {
            let mut out = connection.outbound();
            let before = out.behind();
            connection.flush(&mut out);
            if out.behind() < before {
                moved = Instant::now();
            }
        }
        slow.retain(behind);
    }
    if !slow.is_empty() {
        let programs = slow.len();
        tracing::warn!(programs, "did not take all that the guest had sent");
    }
}

//! One contestant's turn: a fresh daemon, a fresh mount, one load.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use lab::bridge::{Bridge, Cutter};

use super::SystemCalls;
use super::config::FsConfig;
use super::contestant::{Contestant, Entry};
use super::error::TurnError;
use super::ground::Ground;
use super::load::{Done, Prepared};
use super::results::Sample;
use super::workload::{Cache, Workload};
use crate::interrupt::Interrupt;
use crate::measure::{Bystanders, Cost, Counter};
use crate::peer::RunningDaemon;
use crate::scenario::quiet;

/// How long fio runs at most while system calls are counted.
const COUNTED: Duration = Duration::from_millis(500);
/// A load that takes so much longer than a turn hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What all turns of a workload share.
#[derive(Clone, Copy)]
pub(super) struct Turns<'a> {
    pub(super) workload: Workload,
    pub(super) ground: &'a Ground,
    pub(super) config: &'a FsConfig,
    pub(super) interrupt: &'a Interrupt,
    /// Where sockets and mounts go.
    pub(super) scratch: &'a Path,
}

impl Turns<'_> {
    /// Takes a turn; where the user wants, at a quiet time, and again while it was disturbed.
    pub(super) fn take(
        &self,
        who: &Contestant,
        entry: &Entry,
        cache: Cache,
    ) -> Result<Sample, TurnError> {
        quiet::take(
            self.config.run.undisturbed,
            self.interrupt,
            |sample: &Sample| sample.others_percent,
            || self.take_once(who, entry, cache),
        )
    }

    fn take_once(
        &self,
        who: &Contestant,
        entry: &Entry,
        cache: Cache,
    ) -> Result<Sample, TurnError> {
        let duration = self.config.run.duration;
        self.mounted(who, entry, cache, |stage| {
            let others = Bystanders::read();
            let before = stage.cost()?;
            let done = stage.load.run(stage.base, duration, self.interrupt)?;
            let cost = stage
                .cost()?
                .zip(before)
                .map(|(after, before)| after.since(&before));
            let used = Duration::from_nanos(cost.map_or(0, |it| it.daemon.cpu_ns));
            Ok(sample(done, cost, others.percent_since(used)))
        })
    }

    /// Counts a daemon's system calls in a short run of its own; nothing for the bare host.
    pub(super) fn count(
        &self,
        who: &Contestant,
        entry: &Entry,
        cache: Cache,
        counter: &Counter,
    ) -> Result<Option<SystemCalls>, TurnError> {
        if matches!(entry, Entry::Host) {
            return Ok(None);
        }
        let duration = self.config.run.duration.min(COUNTED);
        self.mounted(who, entry, cache, |stage| {
            let Some((daemon, _)) = stage.chain else {
                return Ok(None);
            };
            let load = || {
                let done = stage.load.run(stage.base, duration, self.interrupt);
                done.map_err(TurnError::from)
            };
            let (calls, done) = counter.count(&daemon.processes(), load)?;
            Ok(Some(SystemCalls {
                by: counter.method(),
                per_request: calls as f64 / done.operations as f64,
                requests: done.operations,
            }))
        })
    }

    /// Sets everything up for one load, and puts all of it away again.
    fn mounted<T>(
        &self,
        who: &Contestant,
        entry: &Entry,
        cache: Cache,
        act: impl FnOnce(&Stage<'_>) -> Result<T, TurnError>,
    ) -> Result<T, TurnError> {
        let load = Prepared::new(self.workload, self.ground)?;
        let socket = self.scratch.join("fs.sock");
        let daemon = entry.start(self.ground.path(), cache, who.queues, &socket)?;
        let Some(daemon) = daemon else {
            return act(&Stage {
                load: &load,
                base: self.ground.path(),
                chain: None,
            });
        };
        let point = self.scratch.join("mnt");
        let queues = usize::from(who.queues);
        let bridge = Bridge::new(daemon.socket()).queues(queues).mount(&point)?;
        let base = match entry {
            Entry::External(_) => point.join(self.ground.name()),
            _ => point.clone(),
        };
        let limit = PATIENCE + self.config.run.duration;
        let result = guarded(bridge.cutter(), limit, || {
            act(&Stage {
                load: &load,
                base: &base,
                chain: Some((&daemon, &bridge)),
            })
        });
        bridge.unmount()?;
        result
    }
}

/// What a load acts on.
struct Stage<'a> {
    load: &'a Prepared<'a>,
    /// Shows the ground.
    base: &'a Path,
    chain: Option<(&'a RunningDaemon, &'a Bridge)>,
}

/// What daemon and bridge have used, or used between two readings.
#[derive(Clone, Copy)]
struct Used {
    daemon: Cost,
    bridge: Duration,
}

impl Used {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            daemon: self.daemon.since(&earlier.daemon),
            bridge: self.bridge.saturating_sub(earlier.bridge),
        }
    }
}

impl Stage<'_> {
    fn cost(&self) -> Result<Option<Used>, TurnError> {
        let read = |(daemon, bridge): (&RunningDaemon, &Bridge)| {
            Ok(Used {
                daemon: daemon.processes().cost()?,
                bridge: bridge.processor_time()?,
            })
        };
        self.chain.map(read).transpose().map_err(TurnError::Gone)
    }
}

/// Cuts the mount when `act` takes too long: everything that waits on it then fails.
fn guarded<T>(
    cutter: Cutter,
    limit: Duration,
    act: impl FnOnce() -> Result<T, TurnError>,
) -> Result<T, TurnError> {
    let (alive, watched) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        let hangs = watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if hangs {
            cutter.cut();
        }
        hangs
    });
    let result = act();
    drop(alive);
    match guard.join() {
        Ok(true) => Err(TurnError::Hangs(limit.as_secs())),
        _ => result,
    }
}

fn sample(done: Done, used: Option<Used>, others_percent: f64) -> Sample {
    let operations = done.operations.max(1) as f64;
    Sample {
        operations: done.operations,
        rate: done.rate,
        latency: done.latency,
        cpu_us: used.map(|it| it.daemon.cpu_ns as f64 / 1e3 / operations),
        bridge_us: used.map(|it| it.bridge.as_secs_f64() * 1e6 / operations),
        switches: used.map(|it| it.daemon.switches as f64 / operations),
        others_percent,
    }
}

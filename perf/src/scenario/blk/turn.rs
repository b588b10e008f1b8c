//! One contestant's turn.

use std::path::Path;
use std::time::Duration;

use super::SystemCalls;
use super::config::BlkConfig;
use super::contestant::Entry;
use super::driver::Driver;
use super::error::TurnError;
use super::image::Disk;
use super::results::Sample;
use super::workload::{Mode, Workload};
use crate::interrupt::Interrupt;
use crate::measure::{Bystanders, Cost, Counter, Latency};
use crate::peer::RunningDaemon;
use crate::peer::fio::{Engine, Figures, Job, Place};
use crate::scenario::quiet;

/// How long the run in which system calls are counted lasts at most.
const COUNTED: Duration = Duration::from_millis(500);

/// What all turns of a workload share.
#[derive(Clone, Copy)]
pub(super) struct Turns<'a> {
    pub workload: Workload,
    pub disk: &'a Disk,
    pub config: &'a BlkConfig,
    pub interrupt: &'a Interrupt,
}

impl Turns<'_> {
    /// Takes a turn; where the user wants, at a quiet time, and again while it was disturbed.
    pub(super) fn take(&self, entry: &Entry, mode: Mode, round: u32) -> Result<Sample, TurnError> {
        quiet::take(
            self.config.run.undisturbed,
            self.interrupt,
            |sample: &Sample| sample.others_percent,
            || self.take_once(entry, mode, round),
        )
    }

    /// Warms up and measures. Each round has offsets of its own, the same for everybody.
    fn take_once(&self, entry: &Entry, mode: Mode, round: u32) -> Result<Sample, TurnError> {
        match entry {
            Entry::Daemon(daemon) => self.drive(daemon, mode, round),
            Entry::Fio { program, engine } => self.run_fio(program, *engine),
        }
    }

    fn connect(&self, daemon: &RunningDaemon, mode: Mode) -> Result<Driver, TurnError> {
        let (workload, bytes) = (self.workload, self.config.bytes);
        let mut driver = Driver::connect(daemon.socket(), workload, mode, bytes)?;
        driver.run(self.config.run.warm_up, 0, self.interrupt)?;
        Ok(driver)
    }

    fn drive(&self, daemon: &RunningDaemon, mode: Mode, round: u32) -> Result<Sample, TurnError> {
        let mut driver = self.connect(daemon, mode)?;
        let processes = daemon.processes();
        let others = Bystanders::read();
        let before = processes.cost().map_err(TurnError::Gone)?;
        let load = driver.run(
            self.config.run.duration,
            u64::from(round) + 1,
            self.interrupt,
        )?;
        let cost = processes.cost().map_err(TurnError::Gone)?.since(&before);
        let iops = load.requests as f64 / load.elapsed.as_secs_f64();
        Ok(sample(
            load.requests,
            iops,
            load.latency.latency(),
            cost,
            others.percent_since(Duration::from_nanos(cost.cpu_ns)),
        ))
    }

    fn run_fio(&self, program: &Path, engine: Engine) -> Result<Sample, TurnError> {
        let Some(file) = self.disk.file() else {
            return Err(TurnError::Gone(std::io::ErrorKind::NotFound.into()));
        };
        let job = Job {
            place: Place::File(file),
            span: self.config.bytes,
            direct: self.disk.is_direct(),
            pattern: self.workload.pattern.fio_name(),
            block: self.workload.block,
            depth: self.workload.depth,
            threads: self.workload.queues,
            each_once: false,
            warm_up: self.config.run.warm_up,
            duration: self.config.run.duration,
        };
        let others = Bystanders::read();
        let figures = job.run(program, engine, self.interrupt)?;
        let Figures {
            requests,
            iops,
            latency,
            cost,
        } = figures;
        Ok(sample(
            requests,
            iops,
            latency,
            cost,
            others.percent_since(Duration::ZERO),
        ))
    }

    /// Counts a daemon's system calls in a short run of its own.
    pub(super) fn count(
        &self,
        daemon: &RunningDaemon,
        mode: Mode,
        counter: &Counter,
    ) -> Result<SystemCalls, TurnError> {
        let mut driver = self.connect(daemon, mode)?;
        let duration = self.config.run.duration.min(COUNTED);
        let load = || Ok::<_, TurnError>(driver.run(duration, 1, self.interrupt)?);
        let (calls, load) = counter.count(&daemon.processes(), load)?;
        Ok(SystemCalls {
            by: counter.method(),
            per_request: calls as f64 / load.requests as f64,
            requests: load.requests,
        })
    }
}

fn sample(requests: u64, iops: f64, latency: Latency, cost: Cost, others_percent: f64) -> Sample {
    let requests_or_one = requests.max(1) as f64;
    Sample {
        requests,
        iops,
        latency,
        cpu_us: cost.cpu_ns as f64 / 1e3 / requests_or_one,
        switches: cost.switches as f64 / requests_or_one,
        others_percent,
    }
}

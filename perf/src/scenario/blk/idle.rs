//! What a daemon costs while a front end is connected and asks for nothing.

use std::time::{Duration, Instant};

use super::config::BlkConfig;
use super::contestant::Contestant;
use super::driver::Driver;
use super::error::TurnError;
use super::results::Idle;
use super::workload::{Mode, Target, Workload};
use crate::interrupt::Interrupt;

/// Time for a polling daemon to calm down after the last request.
const SETTLE: Duration = Duration::from_millis(300);

/// Watches a daemon; nothing for other contestants.
pub(super) fn watch(
    target: Target,
    contestant: &Contestant,
    config: &BlkConfig,
    interrupt: &Interrupt,
) -> Option<Result<Idle, TurnError>> {
    let daemon = contestant.daemon()?;
    let watched = || {
        let [first, ..] = Workload::ALL;
        let mut driver = Driver::connect(daemon.socket(), first, Mode::Eventfd, config.bytes)?;
        driver.run(config.run.warm_up, 0, interrupt)?;
        let sleep = |time| {
            interrupt
                .sleep(time)
                .map_err(super::error::DriveError::from)
        };
        sleep(SETTLE)?;
        let processes = daemon.processes();
        let started = Instant::now();
        let before = processes.cost().map_err(TurnError::Gone)?;
        sleep(config.idle)?;
        let cost = processes.cost().map_err(TurnError::Gone)?.since(&before);
        let seconds = started.elapsed().as_secs_f64();
        Ok(Idle {
            target,
            contestant: contestant.name.clone(),
            role: contestant.role,
            cpu_percent: cost.cpu_ns as f64 / 1e9 / seconds * 100.0,
            seconds,
        })
    };
    Some(watched())
}

//! One guest's turn.

use std::time::Duration;

use super::line_up::Seat;
use super::load::GuestLoad;
use super::results::GuestSample;
use super::tools::{self, Passed};
use crate::interrupt::Interrupt;
use crate::measure::Bystanders;
use crate::scenario::net::config::NetConfig;
use crate::scenario::net::error::TurnError;
use crate::scenario::net::ground::Ground;
use crate::scenario::quiet;

/// QEMU's names of threads that run the guest's processors, with `debug-threads=on`.
const PROCESSOR: &str = "CPU ";
const GIBIBYTE: f64 = (1_u64 << 30) as f64;
/// Pings that processor time is told for.
const PINGS: f64 = 1000.0;

/// What all turns of a load share.
#[derive(Clone, Copy)]
pub(crate) struct Turns<'a> {
    pub(crate) load: GuestLoad,
    pub(crate) ground: &'a Ground,
    pub(crate) config: &'a NetConfig,
    pub(crate) interrupt: &'a Interrupt,
}

/// Processor time up to now, in nanoseconds.
struct Used {
    /// Of hypervisor, guest and daemon.
    all: u64,
    /// Of threads that run the guest's processors, where those are threads of their own.
    processors: u64,
    daemon: Option<u64>,
}

impl Turns<'_> {
    /// Takes a turn; where the user wants, at a quiet time, and again while it was disturbed.
    pub(super) fn take(&self, seat: &Seat) -> Result<GuestSample, TurnError> {
        quiet::take(
            self.config.run.undisturbed,
            self.interrupt,
            |sample: &GuestSample| sample.others_percent,
            || self.take_once(seat),
        )
    }

    fn take_once(&self, seat: &Seat) -> Result<GuestSample, TurnError> {
        let others = Bystanders::read();
        let before = used(seat)?;
        let time = self.config.run.duration;
        let passed = tools::pass(self.load, seat, self.ground, time)?;
        let after = used(seat)?;
        let all = after.all.saturating_sub(before.all);
        let others = others.percent_since(Duration::from_nanos(all));
        Ok(sample(&passed, (&before, &after), others))
    }
}

fn used(seat: &Seat) -> Result<Used, TurnError> {
    let hypervisor = seat.hypervisor();
    let guest = hypervisor.cost().map_err(TurnError::Gone)?.cpu_ns;
    let daemon = seat.daemon().map(|daemon| daemon.cost()).transpose();
    let daemon = daemon.map_err(TurnError::Gone)?.map(|cost| cost.cpu_ns);
    Ok(Used {
        all: guest + daemon.unwrap_or(0),
        processors: hypervisor.threads_cpu_ns(|name| name.starts_with(PROCESSOR)),
        daemon,
    })
}

fn sample(passed: &Passed, (before, after): (&Used, &Used), others_percent: f64) -> GuestSample {
    let bits = passed.bytes as f64 * 8.0;
    let units = match passed.latency.total() {
        0 => passed.bytes as f64 / GIBIBYTE,
        pings => pings as f64 / PINGS,
    };
    let spent = |of: fn(&Used) -> u64| of(after).saturating_sub(of(before)) as f64 / 1e9 / units;
    let device = |it: &Used| it.all.saturating_sub(it.processors);
    GuestSample {
        gbit_per_s: bits / 1e9 / passed.elapsed.as_secs_f64(),
        latency: (passed.latency.total() > 0).then(|| passed.latency.latency()),
        cpu_s: spent(|it| it.all),
        device_cpu_s: (after.processors > 0).then(|| spent(device)),
        daemon_cpu_s: after.daemon.map(|_| spent(|it| it.daemon.unwrap_or(0))),
        others_percent,
    }
}

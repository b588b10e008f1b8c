//! One contestant's turn.

use std::path::Path;
use std::time::Duration;

use lab::netns::NetNamespace;

use super::SystemCalls;
use super::bare;
use super::config::NetConfig;
use super::contestant::{Entry, Place, TapPlace};
use super::driver::{Driver, Load, frames};
use super::error::{Error, TurnError};
use super::frame;
use super::ground::Ground;
use super::results::Sample;
use super::workload::{Direction, Workload};
use crate::interrupt::Interrupt;
use crate::measure::{Bystanders, Cost, Counter};
use crate::scenario::quiet;
use crate::sys::packet_socket::Generator;

/// How long the run in which system calls are counted lasts at most.
const COUNTED: Duration = Duration::from_millis(500);
/// The two stations of a switch.
const STATIONS: [[u8; 6]; 2] = [[0x02, 0, 0, 0, 1, 1], [0x02, 0, 0, 0, 1, 2]];

/// What all turns of a workload share.
#[derive(Clone, Copy)]
pub(super) struct Turns<'a> {
    pub(super) workload: Workload,
    pub(super) ground: &'a Ground,
    pub(super) config: &'a NetConfig,
    pub(super) interrupt: &'a Interrupt,
}

impl Turns<'_> {
    /// Takes a turn; where the user wants, at a quiet time, and again while it was disturbed.
    pub(super) fn take(&self, entry: &Entry) -> Result<Sample, TurnError> {
        quiet::take(
            self.config.run.undisturbed,
            self.interrupt,
            |sample: &Sample| sample.others_percent,
            || self.take_once(entry),
        )
    }

    fn take_once(&self, entry: &Entry) -> Result<Sample, TurnError> {
        let (warm_up, time) = (self.config.run.warm_up, self.config.run.duration);
        match entry {
            Entry::Bare(tap, place) => {
                let frame = frame::frame(self.workload, 0, place.number);
                let others = Bystanders::read();
                let (load, cost) = match self.workload.direction {
                    Direction::Rx => {
                        let generator = self.ground.generator(&place.name, &frame)?;
                        bare::receive(tap, &generator, time, self.interrupt)?
                    }
                    _ => {
                        let frames: Vec<_> =
                            (0..256).map(frames(self.workload, place.number)).collect();
                        bare::send(tap, &frames, time, self.interrupt)?
                    }
                };
                Ok(sample(
                    self.workload,
                    &load,
                    cost,
                    others.percent_since(Duration::ZERO),
                ))
            }
            Entry::Daemon(daemon, place) => {
                let mut stage = self.stage(daemon.socket(), place)?;
                self.act(&mut stage, warm_up)?;
                let processes = daemon.processes();
                let others = Bystanders::read();
                let before = processes.cost().map_err(TurnError::Gone)?;
                let load = self.act(&mut stage, time)?;
                let cost = processes.cost().map_err(TurnError::Gone)?.since(&before);
                let others = others.percent_since(Duration::from_nanos(cost.cpu_ns));
                Ok(sample(self.workload, &load, cost, others))
            }
        }
    }

    fn stage(&self, socket: &Path, place: &Place) -> Result<Stage, TurnError> {
        let workload = self.workload;
        match place {
            Place::Tap(tap) => Ok(Stage {
                driver: Driver::connect(socket, workload, frames(workload, tap.number))?,
                generator: match workload.direction {
                    Direction::Rx => Some(self.generator(tap)?),
                    _ => None,
                },
                other: None,
            }),
            Place::Switch(other) => {
                let [here, there] = STATIONS;
                let frames = |from, to| move |slot| frame::between(workload, slot, 0, from, to);
                let mut driver = Driver::connect(socket, workload, frames(here, there))?;
                let mut other = Driver::connect(other, workload, frames(there, here))?;
                other.show()?;
                driver.show()?;
                Ok(Stage {
                    driver,
                    generator: None,
                    other: Some(other),
                })
            }
        }
    }

    fn generator(&self, tap: &TapPlace) -> Result<Generator, TurnError> {
        let frame = frame::frame(self.workload, 0, tap.number);
        let Some(pid) = tap.of else {
            return Ok(self.ground.generator(&tap.name, &frame)?);
        };
        let namespace = NetNamespace::of_process(pid).map_err(Error::from)?;
        let open = || Generator::open(&tap.name, &frame);
        let opened = namespace.run(open).map_err(Error::from)?;
        Ok(opened.map_err(Error::Generator)?)
    }

    fn act(&self, stage: &mut Stage, time: Duration) -> Result<Load, TurnError> {
        let (stop, driver) = (self.interrupt, &mut stage.driver);
        match (&mut stage.other, &stage.generator, self.workload.direction) {
            (Some(other), _, _) => driver.send_to(other, time, stop),
            (_, Some(generator), _) => driver.receive(generator, time, stop),
            (_, _, Direction::Echo) => driver.echo(self.workload.depth, time, stop),
            _ => driver.send(time, stop),
        }
    }

    /// Counts a daemon's system calls in a short run of its own; nothing for the bare tap.
    pub(super) fn count(
        &self,
        entry: &Entry,
        counter: &Counter,
    ) -> Result<Option<SystemCalls>, TurnError> {
        let Entry::Daemon(daemon, place) = entry else {
            return Ok(None);
        };
        let mut stage = self.stage(daemon.socket(), place)?;
        self.act(&mut stage, self.config.run.warm_up)?;
        let time = self.config.run.duration.min(COUNTED);
        let load = || self.act(&mut stage, time);
        let (calls, load) = counter.count(&daemon.processes(), load)?;
        Ok(Some(SystemCalls {
            by: counter.method(),
            per_request: calls as f64 / load.packets as f64,
            requests: load.packets,
        }))
    }
}

/// What a load acts on.
struct Stage {
    driver: Driver,
    generator: Option<Generator>,
    other: Option<Driver>,
}

fn sample(workload: Workload, load: &Load, cost: Cost, others_percent: f64) -> Sample {
    let packets = load.packets.max(1) as f64;
    let rate = load.packets as f64 / load.elapsed.as_secs_f64();
    Sample {
        packets: load.packets,
        rate,
        gbit_per_s: rate * workload.bytes as f64 * 8.0 / 1e9,
        latency: (load.latency.total() > 0).then(|| load.latency.latency()),
        cpu_us: cost.cpu_ns as f64 / 1e3 / packets,
        switches: cost.switches as f64 / packets,
        others_percent,
    }
}

//! The run: target after target, workload after workload.

use lab::scratch::Scratch;

use super::aims;
use super::config::BlkConfig;
use super::contestant::Contestant;
use super::error::Error;
use super::group::Group;
use super::idle;
use super::image::{Disk, DiskError};
use super::line_up::line_up;
use super::results::{Report, SCHEMA, Settings};
use super::turn::Turns;
use super::workload::{Target, Workload};
use crate::host::{HostFacts, load_average};
use crate::interrupt::Interrupt;
use crate::measure::Counter;
use crate::report::Progress;
use crate::sys::keep_awake::KeepAwake;

/// Contestants of a target and their modes, about: for the length of the progress bar.
const SEATS: u64 = 10;

/// Measures what the options ask for.
///
/// # Errors
/// When nothing is left to measure or a directory cannot be made. What goes wrong with one
/// contestant is in the report, and so is what was measured when the user asks to stop.
pub fn run(config: &BlkConfig, interrupt: &Interrupt) -> Result<Report, Error> {
    let scratch = Scratch::new("perf").map_err(|source| Error::Image {
        path: std::env::temp_dir(),
        source,
    })?;
    let counter = Counter::probe(scratch.path());
    let _awake = config.run.keep_awake.then(KeepAwake::start);
    let mut report = empty_report(config, counter.as_ref());
    let plan = plan(config)?;
    let groups: usize = plan.iter().map(|(_, workloads)| workloads.len()).sum();
    let mut progress = Progress::new(groups as u64 * u64::from(config.run.rounds) * SEATS);
    for (target, workloads) in plan {
        let run = TargetRun {
            target,
            config,
            interrupt,
            counter: counter.as_ref(),
        };
        match run.measure(&workloads, &scratch, &mut progress, &mut report) {
            // What is measured so far is worth telling.
            Err(Error::Interrupted(_)) => {
                report.complete = false;
                break;
            }
            done => done?,
        }
    }
    report.verdicts = aims::verdicts(&report.rows, &report.idle);
    report.host.load_after = Some(load_average());
    Ok(report)
}

fn empty_report(config: &BlkConfig, counter: Option<&Counter>) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        host: HostFacts::read(),
        settings: settings(config, counter),
        complete: true,
        contestants: Vec::new(),
        rows: Vec::new(),
        idle: Vec::new(),
        verdicts: Vec::new(),
    }
}

fn settings(config: &BlkConfig, counter: Option<&Counter>) -> Settings {
    Settings {
        rounds: config.run.rounds,
        seconds: config.run.duration.as_secs_f64(),
        warm_up_seconds: config.run.warm_up.as_secs_f64(),
        undisturbed: config.run.undisturbed,
        keep_awake: config.run.keep_awake,
        bytes: config.bytes,
        system_calls_by: counter.map(Counter::method),
    }
}

/// The workloads of each target whose name contains the pattern.
fn plan(config: &BlkConfig) -> Result<Vec<(Target, Vec<Workload>)>, Error> {
    let chosen = |target: Target| {
        let name = move |it: &Workload| format!("{target}/{}", it.name());
        let all = config.workloads.iter().copied();
        all.filter(|it| config.run.only.takes(&name(it)))
            .collect::<Vec<_>>()
    };
    let targets = config
        .targets
        .iter()
        .map(|&target| (target, chosen(target)));
    let plan: Vec<_> = targets
        .filter(|(_, workloads)| !workloads.is_empty())
        .collect();
    Ok(config.run.only.at_least_one(plan)?)
}

struct TargetRun<'a> {
    target: Target,
    config: &'a BlkConfig,
    interrupt: &'a Interrupt,
    counter: Option<&'a Counter>,
}

impl TargetRun<'_> {
    fn measure(
        &self,
        workloads: &[Workload],
        scratch: &Scratch,
        progress: &mut Progress,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (target, config, interrupt) = (self.target, self.config, self.interrupt);
        progress.say(&format!("{target}: preparing"), "");
        let disk = self.prepare()?;
        let copies: Result<Vec<_>, Error> = config
            .run
            .other_builds
            .iter()
            .map(|_| self.prepare())
            .collect();
        let copies = copies?;
        let disk = disk.as_ref().map_err(String::as_str);
        let sockets = scratch
            .dir(&target.to_string())
            .map_err(|source| Error::Image {
                path: scratch.join(&target.to_string()),
                source,
            })?;
        let contestants = line_up(target, disk, &copies, config, &sockets);
        report
            .contestants
            .extend(contestants.iter().map(|it| it.facts(target)));
        for &workload in workloads {
            let mut group = Group::new(target, workload, &contestants, &config.modes);
            if let Ok(disk) = disk {
                let turns = Turns {
                    workload,
                    disk,
                    config,
                    interrupt,
                };
                group.run(&turns, self.counter, progress)?;
            }
            report.rows.extend(group.rows());
        }
        self.watch_idle(&contestants, progress, report)
    }

    /// The target's disk, or why there is none.
    fn prepare(&self) -> Result<Result<Disk, String>, Error> {
        match Disk::prepare(self.target, self.config, self.interrupt) {
            Err(DiskError::Interrupted(interrupted)) => Err(interrupted.into()),
            disk => Ok(disk.map_err(|error| error.to_string())),
        }
    }

    fn watch_idle(
        &self,
        contestants: &[Contestant],
        progress: &mut Progress,
        report: &mut Report,
    ) -> Result<(), Error> {
        for contestant in contestants {
            progress.say(&format!("{}/idle", self.target), &contestant.name);
            match idle::watch(self.target, contestant, self.config, self.interrupt) {
                None => {}
                Some(Ok(idle)) => report.idle.push(idle),
                Some(Err(error)) => match error.interrupted() {
                    Some(interrupted) => return Err(interrupted.into()),
                    None => eprintln!("{} idle: {}", contestant.name, error.told()),
                },
            }
        }
        Ok(())
    }
}

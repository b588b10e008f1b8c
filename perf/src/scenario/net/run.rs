//! The run: target after target, workload after workload.

use std::path::Path;

use lab::scratch::Scratch;

use super::aims;
use super::config::NetConfig;
use super::error::Error;
use super::ground::Ground;
use super::group::Group;
use super::guest::{self, GuestLoad};
use super::line_up::line_up;
use super::plan::{Step, plan};
use super::results::{Report, SCHEMA, Settings};
use super::turn::Turns;
use super::workload::{Target, Workload};
use crate::host::{HostFacts, load_average};
use crate::interrupt::Interrupt;
use crate::measure::Counter;
use crate::report::Progress;
use crate::sys::keep_awake::KeepAwake;

/// Measures what the options ask for.
///
/// # Errors
/// When nothing is left to measure or the network cannot be made. What goes wrong with one contestant
/// is in the report, and so is what was measured when the user asks to stop.
pub fn run(config: &NetConfig, interrupt: &Interrupt) -> Result<Report, Error> {
    let plan = plan(config)?;
    let scratch = Scratch::new("perf").map_err(Error::Scratch)?;
    let counter = Counter::probe(scratch.path());
    let _awake = config.run.keep_awake.then(KeepAwake::start);
    let mut report = empty_report(config, counter.as_ref());
    let builds = config.run.other_builds.len() + config.peers.len() + 2;
    let turns: usize = plan.iter().map(|step| step.loads() * builds).sum();
    let mut progress = Progress::new(turns as u64 * u64::from(config.run.rounds));
    let run = Run {
        config,
        interrupt,
        scratch: &scratch,
        counter: counter.as_ref(),
    };
    for step in plan {
        match run.measure(&step, &mut progress, &mut report) {
            // What is measured so far is worth telling.
            Err(Error::Interrupted(_)) => {
                report.complete = false;
                break;
            }
            done => done?,
        }
    }
    report.verdicts = aims::verdicts(&report.rows);
    report.verdicts.extend(guest::verdicts(&report.guests));
    report.host.load_after = Some(load_average());
    Ok(report)
}

fn empty_report(config: &NetConfig, counter: Option<&Counter>) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        host: HostFacts::read(),
        settings: Settings {
            rounds: config.run.rounds,
            seconds: config.run.duration.as_secs_f64(),
            undisturbed: config.run.undisturbed,
            keep_awake: config.run.keep_awake,
            system_calls_by: counter.map(Counter::method),
        },
        complete: true,
        contestants: Vec::new(),
        rows: Vec::new(),
        guests: Vec::new(),
        verdicts: Vec::new(),
    }
}

/// What all steps of a run share.
struct Run<'a> {
    config: &'a NetConfig,
    interrupt: &'a Interrupt,
    scratch: &'a Scratch,
    counter: Option<&'a Counter>,
}

impl Run<'_> {
    fn measure(
        &self,
        step: &Step,
        progress: &mut Progress,
        report: &mut Report,
    ) -> Result<(), Error> {
        let target = step.target();
        progress.say(&format!("{target}: preparing"), "");
        let ground = Ground::new()?;
        let sockets = self.scratch.dir(&target.to_string());
        let sockets = sockets.map_err(Error::Scratch)?;
        match step {
            Step::Rings(_, loads) => {
                self.measure_rings((target, loads), (&ground, &sockets), progress, report)
            }
            Step::Guests(_, loads) => {
                self.measure_guests((target, loads), (&ground, &sockets), progress, report)
            }
        }
    }

    fn measure_rings(
        &self,
        (target, workloads): (Target, &[Workload]),
        (ground, sockets): (&Ground, &Path),
        progress: &mut Progress,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (config, interrupt) = (self.config, self.interrupt);
        let contestants = line_up(target, ground, config, sockets)?;
        let facts = contestants.iter().map(|it| it.facts(target));
        report.contestants.extend(facts);
        for &workload in workloads {
            let mut group = Group::new(target, workload, &contestants);
            let turns = Turns {
                workload,
                ground,
                config,
                interrupt,
            };
            group.run(&turns, self.counter, progress)?;
            report.rows.extend(group.rows());
        }
        Ok(())
    }

    fn measure_guests(
        &self,
        (target, loads): (Target, &[GuestLoad]),
        (ground, sockets): (&Ground, &Path),
        progress: &mut Progress,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (config, interrupt) = (self.config, self.interrupt);
        let contestants = guest::line_up(target, ground, config, sockets)?;
        let facts = contestants.iter().map(|it| it.facts(target));
        report.contestants.extend(facts);
        for &load in loads {
            let mut group = guest::Group::new(target, &contestants);
            let turns = guest::Turns {
                load,
                ground,
                config,
                interrupt,
            };
            group.run(&turns, progress)?;
            report.guests.extend(group.rows(&turns));
        }
        Ok(())
    }
}

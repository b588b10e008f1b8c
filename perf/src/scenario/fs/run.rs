//! The run: target after target, workload after workload.

use std::path::Path;

use lab::scratch::Scratch;
use lab::{mounts, need};

use super::aims;
use super::config::FsConfig;
use super::error::Error;
use super::ground::{Ground, GroundError};
use super::group::Group;
use super::line_up::line_up;
use super::results::{Report, SCHEMA, Settings};
use super::turn::Turns;
use super::workload::{Target, Workload};
use crate::host::{HostFacts, load_average};
use crate::interrupt::Interrupt;
use crate::measure::Counter;
use crate::report::Progress;
use crate::sys::keep_awake::KeepAwake;

/// Contestants of a target and their ways of caching, about: for the length of the progress bar.
const SEATS: u64 = 8;

/// Measures what the options ask for, in a mount namespace of the calling thread's own.
///
/// # Errors
/// When this is not root, or nothing is left to measure. What goes wrong with one contestant is in
/// the report, and so is what was measured when the user asks to stop.
pub fn run(config: &FsConfig, interrupt: &Interrupt) -> Result<Report, Error> {
    let chosen = |target: Target| {
        let name = move |it: &Workload| format!("{target}/{}", it.name());
        let chosen = config
            .workloads
            .iter()
            .filter(|it| config.run.only.takes(&name(it)));
        chosen.copied().collect::<Vec<_>>()
    };
    let plan: Vec<_> = config
        .targets
        .iter()
        .map(|&target| (target, chosen(target)))
        .filter(|(_, workloads)| !workloads.is_empty())
        .collect();
    let plan = config.run.only.at_least_one(plan)?;
    need::root()?;
    need::device("/dev/fuse")?;
    // The mounts are nobody else's business, and go with this process whatever ends it.
    mounts::make_private().map_err(Error::Namespace)?;
    let place = |source| Error::Place {
        path: std::env::temp_dir(),
        source,
    };
    let scratch = Scratch::new("perf").map_err(place)?;
    scratch.dir("mnt").map_err(place)?;
    let counter = Counter::probe(scratch.path());
    let _awake = config.run.keep_awake.then(KeepAwake::start);
    let mut report = empty_report(config, counter.as_ref());
    let groups: usize = plan.iter().map(|(_, workloads)| workloads.len()).sum();
    let mut progress = Progress::new(groups as u64 * u64::from(config.run.rounds) * SEATS);
    for (target, workloads) in plan {
        let run = TargetRun {
            target,
            config,
            interrupt,
            scratch: scratch.path(),
            counter: counter.as_ref(),
        };
        match run.measure(&workloads, &mut progress, &mut report) {
            // What is measured so far is worth telling.
            Err(Error::Interrupted(_)) => {
                report.complete = false;
                break;
            }
            done => done?,
        }
    }
    report.verdicts = aims::verdicts(&report.rows, report.host.cores);
    report.host.load_after = Some(load_average());
    Ok(report)
}

fn empty_report(config: &FsConfig, counter: Option<&Counter>) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        host: HostFacts::read(),
        settings: Settings {
            rounds: config.run.rounds,
            seconds: config.run.duration.as_secs_f64(),
            undisturbed: config.run.undisturbed,
            keep_awake: config.run.keep_awake,
            bytes: config.bytes,
            files: config.files,
            system_calls_by: counter.map(Counter::method),
        },
        complete: true,
        contestants: Vec::new(),
        rows: Vec::new(),
        verdicts: Vec::new(),
    }
}

struct TargetRun<'a> {
    target: Target,
    config: &'a FsConfig,
    interrupt: &'a Interrupt,
    scratch: &'a Path,
    counter: Option<&'a Counter>,
}

impl TargetRun<'_> {
    fn measure(
        &self,
        workloads: &[Workload],
        progress: &mut Progress,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (target, config) = (self.target, self.config);
        progress.say(&format!("{target}: preparing"), "");
        let mut contestants = line_up(target, config);
        let ground = match Ground::prepare(target, config, self.interrupt) {
            Ok(ground) => Some(ground),
            Err(GroundError::Interrupted(interrupted)) => return Err(interrupted.into()),
            Err(error) => {
                for who in &mut contestants {
                    who.entry = Err(error.to_string());
                }
                None
            }
        };
        let path = ground.as_ref().map_or(Path::new(""), Ground::path);
        let facts = contestants.iter().map(|it| it.facts(target, path));
        report.contestants.extend(facts);
        for &workload in workloads {
            let mut group = Group::new(target, workload, &contestants, &config.caches);
            if let Some(ground) = &ground {
                let turns = Turns {
                    workload,
                    ground,
                    config,
                    interrupt: self.interrupt,
                    scratch: self.scratch,
                };
                group.run(&turns, self.counter, progress)?;
            }
            report.rows.extend(group.rows());
        }
        Ok(())
    }
}

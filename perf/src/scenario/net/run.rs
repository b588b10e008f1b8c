//! The run: target after target, workload after workload.

use lab::scratch::Scratch;

use super::aims;
use super::config::NetConfig;
use super::error::Error;
use super::ground::Ground;
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
    let turns: usize = plan.iter().map(|(_, it)| it.len() * builds).sum();
    let mut progress = Progress::new(turns as u64 * u64::from(config.run.rounds));
    for (target, workloads) in plan {
        let measured = measure(
            (target, &workloads),
            (config, interrupt),
            (&scratch, counter.as_ref()),
            &mut progress,
            &mut report,
        );
        match measured {
            // What is measured so far is worth telling.
            Err(Error::Interrupted(_)) => {
                report.complete = false;
                break;
            }
            done => done?,
        }
    }
    report.verdicts = aims::verdicts(&report.rows);
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
        verdicts: Vec::new(),
    }
}

/// The workloads of each target whose name contains the pattern.
fn plan(config: &NetConfig) -> Result<Vec<(Target, Vec<Workload>)>, Error> {
    let chosen = |target: Target| {
        let name = move |it: &Workload| format!("{target}/{}", it.name());
        let all = Workload::ALL.into_iter();
        all.filter(|it| it.runs_on(target) && name(it).contains(&config.run.only))
            .collect::<Vec<_>>()
    };
    let targets = config.targets.iter().map(|&it| (it, chosen(it)));
    let plan: Vec<_> = targets
        .filter(|(_, workloads)| !workloads.is_empty())
        .collect();
    match plan.is_empty() {
        true => Err(Error::Nothing(config.run.only.clone())),
        false => Ok(plan),
    }
}

fn measure(
    (target, workloads): (Target, &[Workload]),
    (config, interrupt): (&NetConfig, &Interrupt),
    (scratch, counter): (&Scratch, Option<&Counter>),
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), Error> {
    progress.say(&format!("{target}: preparing"), "");
    let ground = Ground::new()?;
    let sockets = scratch.dir(&target.to_string()).map_err(Error::Scratch)?;
    let contestants = line_up(target, &ground, config, &sockets)?;
    let facts = contestants.iter().map(|it| it.facts(target));
    report.contestants.extend(facts);
    for &workload in workloads {
        let mut group = Group::new(target, workload, &contestants);
        let turns = Turns {
            workload,
            ground: &ground,
            config,
            interrupt,
        };
        group.run(&turns, counter, progress)?;
        report.rows.extend(group.rows());
    }
    Ok(())
}

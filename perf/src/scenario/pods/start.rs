//! `ringside-perf start`: from `ctr run` to the first output, and what a pod holds part by part.

use super::agent;
use super::containerd::{Containerd, Runtime};
use super::contestant::{Contestant, empty, kernel, line_up, machine};
use super::error::Error;
use super::options::PodsConfig;
use super::parts::{self, Held};
use crate::findings::{Better, Collector, Findings, Told};
use crate::host::load_average;
use crate::interrupt::{Interrupt, Interrupted};
use crate::report::{Progress, with_causes};
use crate::scenario::order;

const START: Told = lower("from ctr's start to the container's first output", "ms");
const PRIVATE: Told = lower("private memory that is written", "KiB");
const CLEAN: Told = lower(
    "other resident memory: programs, libraries, what is shared",
    "KiB",
);
const GUEST: Told = lower("guest memory in use", "KiB");
const AGENT: Told = lower(agent::ANONYMOUS, "KiB");

/// What is said, and stays until it is ended.
pub(super) const SCRIPT: &str = "echo up; exec sleep 100000";

pub(super) const fn lower(what: &'static str, unit: &'static str) -> Told {
    Told {
        what,
        unit,
        better: Better::Lower,
    }
}

/// Measures what the options ask for.
///
/// # Errors
/// When containerd does not start. What goes wrong with a runtime is in the findings.
pub fn run(config: &PodsConfig, interrupt: &Interrupt) -> Result<Findings, Error> {
    let (mut contestants, absent) = line_up();
    contestants.retain(|it| config.only.takes(it.name));
    let contestants = config.only.at_least_one(contestants)?;
    let containerd = Containerd::start()?;
    let mut report = empty(
        "start",
        vec![
            format!(
                "Medians of {} rounds, in which every runtime had a turn, after one that does not count; \
                 Debian's containerd, busybox, `ctr run`.",
                config.rounds
            ),
            machine().to_owned(),
            kernel()?,
            "Private memory is what the processes alone have written; other pages are shared between pods, or \
             can be read again."
                .to_owned(),
        ],
    );
    report.skipped = absent;
    let mut found = Collector::default();
    let turns = u64::from(config.rounds + 1) * contestants.len() as u64;
    let mut progress = Progress::new(turns);
    // The first start of all makes what the others take from caches.
    for round in 0..=config.rounds {
        // The first round that counts begins with the first.
        for place in order(round + 1, contestants.len()) {
            let contestant = &contestants[place];
            progress.say(&format!("start, round {round}"), contestant.name);
            let id = format!("{}-{round}", contestant.name.replace(' ', "-"));
            match turn(&containerd, contestant, &id, round, &mut found, interrupt) {
                Err(Error::Interrupted(_)) => report.complete = false,
                Err(error) => {
                    let why = with_causes(&error);
                    found.fail("start", START, contestant.name, contestant.role, &why);
                }
                Ok(()) => {}
            }
            progress.advance(1);
        }
        if !report.complete {
            break;
        }
    }
    let ours = contestants.iter().filter(|it| it.runtime != Runtime::Runc);
    report.verdicts = agent::verdicts(&found, ours.map(|it| it.name));
    report.groups = found.groups();
    report.host.load_after = Some(load_average());
    Ok(report)
}

fn turn(
    containerd: &Containerd,
    contestant: &Contestant,
    id: &str,
    round: u32,
    found: &mut Collector,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    interrupt.check()?;
    let Contestant {
        name,
        role,
        runtime,
    } = *contestant;
    let running = containerd.run(runtime, id, SCRIPT)?;
    if round > 0 {
        let after = running.said_after.as_secs_f64() * 1e3;
        found.add("start", START, name, role, after);
    }
    let told = settle(interrupt)
        .map_err(Error::from)
        .and_then(|()| memory(containerd, contestant, id, round, found));
    containerd.end(running)?;
    told
}

/// Start-up's own memory is given back soon.
pub(super) fn settle(interrupt: &Interrupt) -> Result<(), Interrupted> {
    interrupt.sleep(std::time::Duration::from_secs(1))
}

fn memory(
    containerd: &Containerd,
    contestant: &Contestant,
    id: &str,
    round: u32,
    found: &mut Collector,
) -> Result<(), Error> {
    let parts = parts::of(containerd, contestant.runtime, id)?;
    let mut tell = |who: &str, held: Held| {
        if round > 0 {
            let memory = held.memory;
            let name = contestant.name;
            let group = format!("memory of a pod, {name}");
            for (told, kib) in [
                (PRIVATE, memory.private_kib),
                (CLEAN, memory.clean_kib),
                (GUEST, memory.guest_kib),
            ] {
                // Far below 2^52.
                found.add(&group, told, who, contestant.role, kib as f64);
            }
        }
    };
    for part in &parts {
        tell(&part.name, part.held(&parts)?);
    }
    tell("all parts", parts::together(&parts)?);
    if round > 0 && contestant.runtime != Runtime::Runc {
        let kib = agent::anonymous_kib(&containerd.pod(id))?;
        found.add(agent::GROUP, AGENT, contestant.name, contestant.role, kib);
    }
    Ok(())
}

//! `ringside-perf growth`: what pods cost when there are more of them, and what a queue costs.

use std::thread;
use std::time::{Duration, Instant};

use super::containerd::{Containerd, Running};
use super::contestant::{Contestant, empty, kernel, machine, ours};
use super::error::Error;
use super::options::PodsConfig;
use super::parts::{self, Held};
use super::queues;
use super::start::{SCRIPT, lower, settle};
use crate::findings::{Collector, Curve, Entry, Findings, Group, Told};
use crate::host::load_average;
use crate::interrupt::Interrupt;
use crate::measure::Processes;
use crate::report::{Progress, with_causes};
use crate::scenario::Role;

const ALL_UP: Told = lower("until all of them said something", "ms");
const EACH: Told = lower("the same for each pod", "ms");
const PRIVATE: Told = lower("private memory that is written, for each pod", "KiB");
const GUEST: Told = lower("guest memory in use, for each pod", "KiB");
const IDLE: Told = lower("processor time while idle, for each pod", "% of a core");
const PROCESSES: Told = lower("processes, for each pod", "count");
const THREADS: Told = lower("threads, for each pod", "count");
const DESCRIPTORS: Told = lower("open files, for each pod", "count");

/// How long idle pods are watched.
const WATCHED: Duration = Duration::from_secs(3);

/// Measures what the options ask for.
///
/// # Errors
/// When containerd does not start.
pub fn run(config: &PodsConfig, interrupt: &Interrupt) -> Result<Findings, Error> {
    let contestant = ours();
    let mut report = empty(
        "growth",
        vec![
            format!(
                "Medians of {} rounds; pods of {} that start at the same time, each of 512 MiB and one processor.",
                config.growth_rounds, contestant.name
            ),
            machine().to_owned(),
            kernel()?,
        ],
    );
    let mut found = Collector::default();
    let containerd = Containerd::start()?;
    let mut progress = Progress::new(u64::from(config.growth_rounds) * config.pods.len() as u64);
    // What the first start of all makes, the others take from caches.
    containerd.end(containerd.run(contestant.runtime, "first", SCRIPT)?)?;
    'rounds: for round in 0..config.growth_rounds {
        for &count in &config.pods {
            progress.say("pods at once", &count.to_string());
            let turn = Turn {
                containerd: &containerd,
                contestant,
                who: who(count, "pod"),
            };
            match turn.take(round, count, &mut found, interrupt) {
                Err(Error::Interrupted(_)) => {
                    report.complete = false;
                    break 'rounds;
                }
                Err(error) => {
                    let why = with_causes(&error);
                    found.fail("pods at once", ALL_UP, &turn.who, contestant.role, &why);
                }
                Ok(()) => {}
            }
            progress.advance(1);
        }
    }
    if report.complete {
        queues::measure(config.growth_rounds, &mut found)?;
    }
    report.groups = found.groups();
    for group in &mut report.groups {
        group.curves = curves(group, contestant);
    }
    report.host.load_after = Some(load_average());
    Ok(report)
}

/// The figures along the number of pods or queues, which begins each entry's name.
fn curves(group: &Group, contestant: Contestant) -> Vec<Curve> {
    let line = match group.name.as_str() {
        queues::GROUP => ("vhost-user-blk", Role::Ours),
        _ => (contestant.name, contestant.role),
    };
    let along = match group.name.as_str() {
        queues::GROUP => "queues",
        _ => "pods at once",
    };
    let count = |entry: &Entry| entry.who.split(' ').next().unwrap_or_default().to_owned();
    let curve = |figure| Curve::of_steps(along, figure, line, count);
    group.figures.iter().map(curve).collect()
}

/// `1 pod`, `2 pods`.
pub(super) fn who(count: u32, what: &str) -> String {
    let many = if count == 1 { "" } else { "s" };
    format!("{count} {what}{many}")
}

struct Turn<'a> {
    containerd: &'a Containerd,
    contestant: Contestant,
    who: String,
}

impl Turn<'_> {
    fn take(
        &self,
        round: u32,
        count: u32,
        found: &mut Collector,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        interrupt.check()?;
        let began = Instant::now();
        let started = self.start((round, count));
        let after = began.elapsed().as_secs_f64() * 1e3;
        let (pods, failures): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        let pods: Vec<Running> = pods.into_iter().flatten().collect();
        let measured = match failures.into_iter().find_map(Result::err) {
            Some(error) => Err(error),
            None => {
                self.tell(found, &[(ALL_UP, after), (EACH, after / f64::from(count))]);
                settle(interrupt)
                    .map_err(Error::from)
                    .and_then(|()| self.hold(&pods, count, found, interrupt))
            }
        };
        for pod in pods {
            self.containerd.end(pod)?;
        }
        measured
    }

    /// All at once.
    fn start(&self, (round, count): (u32, u32)) -> Vec<Result<Running, Error>> {
        thread::scope(|scope| {
            let run = |number: u32| {
                let id = format!("grown-{round}-{count}-{number}");
                self.containerd.run(self.contestant.runtime, &id, SCRIPT)
            };
            let threads: Vec<_> = (0..count)
                .map(|number| scope.spawn(move || run(number)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        })
    }

    fn hold(
        &self,
        pods: &[Running],
        count: u32,
        found: &mut Collector,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let mut held = Held::default();
        let mut processes = Vec::new();
        for pod in pods {
            let parts = parts::of(self.containerd, self.contestant.runtime, &pod.id)?;
            held.add(parts::together(&parts)?);
            for part in &parts {
                processes.extend(part.processes(&parts));
            }
        }
        processes.sort_unstable();
        processes.dedup();
        let before = nanoseconds(&processes);
        interrupt.sleep(WATCHED)?;
        let used = nanoseconds(&processes).saturating_sub(before);
        let each = |sum: f64| sum / f64::from(count);
        let percent = used as f64 / WATCHED.as_nanos() as f64 * 100.0;
        let figures = [
            (PRIVATE, each(held.memory.private_kib as f64)),
            (GUEST, each(held.memory.guest_kib as f64)),
            (IDLE, each(percent)),
            (PROCESSES, each(processes.len() as f64)),
            (THREADS, each(f64::from(held.threads))),
            (DESCRIPTORS, each(f64::from(held.descriptors))),
        ];
        self.tell(found, &figures);
        Ok(())
    }

    fn tell(&self, found: &mut Collector, figures: &[(Told, f64)]) {
        for &(told, value) in figures {
            found.add("pods at once", told, &self.who, self.contestant.role, value);
        }
    }
}

fn nanoseconds(processes: &[u32]) -> u64 {
    let one = |pid: &u32| Processes::one(*pid).cost().map_or(0, |it| it.cpu_ns);
    processes.iter().map(one).sum()
}

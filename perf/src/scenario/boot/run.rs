//! The run: round after round, every VMM in its turn.

use std::path::Path;

use guest_image::{Cache, Kernel};
use lab::scratch::Scratch;

use super::config::BootConfig;
use super::contestant::{Contestant, Guest, line_up};
use super::devices::Devices;
use super::results::{Outcome, Report, Row, SCHEMA, Settings};
use super::turn::{self, Guests};
use super::{Error, Sample, Summary, aims, images};
use crate::host::{HostFacts, load_average};
use crate::interrupt::Interrupt;
use crate::report::{Progress, with_causes};
use crate::scenario::{Role, order};
use crate::statistics::Spread;

/// Of a turn: guests die of the lab's translator now and then, on QEMU's q35 board more often than elsewhere.
const TRIES: usize = 8;

/// A contestant and what it did so far; who failed takes no further turns.
struct Entry {
    contestant: Contestant,
    samples: Vec<Sample>,
    failure: Option<String>,
}

/// Measures what the options ask for.
///
/// # Errors
/// When there is no KVM, kernel or daemon. What goes wrong with one contestant is in the report, and so is
/// what was measured when the user asks to stop.
pub fn run(config: &BootConfig, interrupt: &Interrupt) -> Result<Report, Error> {
    check_kvm()?;
    let contestants = config.only.at_least_one(line_up(config))?;
    let scratch = Scratch::new("boot").map_err(Error::Scratch)?;
    let guests = guests(config, scratch.path())?;
    let devices = match config.bare {
        true => None,
        false => Some(Devices::start(scratch.path())?),
    };
    let mut report = empty_report(config, &guests);
    let mut entries: Vec<Entry> = contestants.into_iter().map(Entry::new).collect();
    let mut progress = Progress::new(entries.len() as u64 * u64::from(config.rounds));
    for round in 1..=config.rounds {
        for place in order(round - 1, entries.len()) {
            let entry = &mut entries[place];
            if entry.failure.is_some() {
                continue;
            }
            progress.say(&format!("round {round}: {}", entry.contestant.name), "");
            let take = || turn::take(&entry.contestant, &guests, devices.as_ref(), interrupt);
            match until_it_works(take) {
                Ok(sample) => entry.samples.push(sample),
                Err(Error::Interrupted(_)) => report.complete = false,
                Err(error) => entry.failure = Some(with_causes(&error)),
            }
            progress.advance(1);
        }
        if !report.complete {
            break;
        }
    }
    report.rows = rows(entries, &guests, devices.as_ref());
    report.verdicts = aims::verdicts(&report.rows, report.host.virtualised);
    report.host.load_after = Some(load_average());
    Ok(report)
}

/// A translated processor with virtualisation has errors: now and then a guest dies of one.
fn until_it_works(mut take: impl FnMut() -> Result<Sample, Error>) -> Result<Sample, Error> {
    for _ in 1..TRIES {
        match take() {
            Err(error @ Error::Ended(_)) => eprintln!("once more: {error}"),
            other => return other,
        }
    }
    take()
}

impl Entry {
    fn new(contestant: Contestant) -> Self {
        Self {
            contestant,
            samples: Vec::new(),
            failure: None,
        }
    }
}

fn check_kvm() -> Result<(), Error> {
    match ringside::kvm::probe() {
        Ok(speed) if speed.is_native() => Ok(()),
        Ok(_) => Err(Error::NoKvm("/dev/kvm interprets ring-0 code here".into())),
        Err(error) => Err(Error::NoKvm(error.to_string())),
    }
}

fn guests(config: &BootConfig, scratch: &Path) -> Result<Guests, Error> {
    let cache = Cache::open_default()?;
    let kernel = match &config.kernel {
        Some(path) => path.clone(),
        None if config.slim => Kernel::slim(&cache).ok_or(Error::NoSlim)?.vmlinux(&cache)?,
        None => Kernel::obtain(&cache)?.vmlinux(&cache)?,
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = scratch.join(name);
        std::fs::write(&path, bytes).map_err(|source| Error::Write(path.clone(), source))?;
        Ok::<_, Error>(path)
    };
    let memory_mib = config.memory_mib;
    Ok(Guests {
        linux: Guest {
            kernel,
            initramfs: Some(write("initramfs", &images::initramfs()?)?),
            memory_mib,
        },
        nothing: Guest {
            kernel: write("nothing", &images::kernel())?,
            initramfs: None,
            memory_mib,
        },
    })
}

fn empty_report(config: &BootConfig, guests: &Guests) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        host: HostFacts::read(),
        settings: Settings {
            rounds: config.rounds,
            memory_mib: config.memory_mib,
            kernel: guests.linux.kernel.display().to_string(),
            devices: !config.bare,
        },
        complete: true,
        rows: Vec::new(),
        verdicts: Vec::new(),
    }
}

fn rows(entries: Vec<Entry>, guests: &Guests, devices: Option<&Devices>) -> Vec<Row> {
    let times = |samples: &[Sample]| samples.iter().map(|it| it.boot_ms).collect::<Vec<_>>();
    let ours = entries.iter().find(|it| it.contestant.role == Role::Ours);
    let ours = ours.map_or_else(Vec::new, |it| times(&it.samples));
    let row = |entry: Entry| {
        let is_other = entry.contestant.role != Role::Ours;
        let against = Spread::of_ratios(&ours, &times(&entry.samples)).filter(|_| is_other);
        let command = entry.contestant.command(&guests.linux, devices);
        let summary = Summary::of(&entry.samples);
        Row {
            contestant: entry.contestant.name,
            role: entry.contestant.role,
            command: format!("{command:?}"),
            outcome: Outcome::of(&Ok(()), entry.failure, (entry.samples, summary), None),
            ours_by_it: against,
        }
    };
    entries.into_iter().map(row).collect()
}

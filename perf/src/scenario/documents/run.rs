//! The run: load after load, round after round, every column in its turn.

use super::aims;
use super::column::{Column, line_up};
use super::error::Error;
use super::ground::Ground;
use super::load::{DEVICE, Load, Reading};
use super::machine::{CPUS, MEMORY_MIB, Machine};
use super::options::DocumentsConfig;
use crate::findings::{Collector, Findings, SCHEMA};
use crate::host::{HostFacts, load_average};
use crate::interrupt::Interrupt;
use crate::report::{Progress, with_causes};
use crate::scenario::order;

/// Measures what the options ask for.
///
/// # Errors
/// When there is no guest, or one of our own daemons does not serve. What goes wrong with another column is in
/// the findings, and so is what was measured when the user asks to stop.
pub fn run(config: &DocumentsConfig, interrupt: &Interrupt) -> Result<Findings, Error> {
    let loads = Load::ALL
        .into_iter()
        .filter(|load| config.only.takes(&load.name()));
    let loads = config.only.at_least_one(loads.collect())?;
    let mut host = HostFacts::read();
    let ground = Ground::new(config)?;
    let mut columns = line_up(config, &ground)?;
    let nginx = loads.iter().any(|load| matches!(load, Load::Nginx));
    let mut machine = Machine::boot(config, &ground, &mut columns, nginx)?;
    let method = method(config, &machine.kernel()?);
    let mut found = Collector::default();
    let turns = loads.len() * columns.len();
    let mut progress = Progress::new(turns as u64 * u64::from(config.rounds));
    let mut complete = true;
    'run: for load in loads {
        for round in 0..config.rounds {
            for column in order(round, columns.len()).map(|place| &columns[place]) {
                if interrupt.is_asked() {
                    complete = false;
                    break 'run;
                }
                progress.say(&load.name(), &column.name);
                turn(load, column, &mut machine, config, &mut found);
                progress.advance(1);
            }
        }
    }
    host.load_after = Some(load_average());
    let verdicts = aims::verdicts(&found);
    let absent = columns.iter().filter_map(|it| {
        let why = it.seat.as_ref().err()?;
        Some(format!("{}: {why}", it.name))
    });
    Ok(Findings {
        schema: SCHEMA.to_owned(),
        scenario: "documents".to_owned(),
        host,
        method,
        complete,
        skipped: absent.chain(ABSENT.map(str::to_owned)).collect(),
        verdicts,
        groups: found.groups(),
    })
}

/// What the documents have and no host of today.
const ABSENT: [&str; 2] = [
    "vhost-9p: it was never part of Linux or QEMU",
    "NFS: a guest reaches a server over a network device, which is the `net` scenario's",
];

fn method(config: &DocumentsConfig, kernel: &str) -> Vec<String> {
    vec![
        format!(
            "Medians of {} rounds, in which every column had a turn; fio {} ms, ab and small files {} s, dd {} blocks.",
            config.rounds,
            config.measure.milliseconds,
            config.measure.seconds,
            config.measure.blocks
        ),
        format!(
            "All columns are mounted side by side in one guest: QEMU without KVM (TCG), {CPUS} processors, \
             {MEMORY_MIB} MiB, Linux {kernel}; an emulated processor is the limit of all, so that only ratios count."
        ),
        "File systems have queues of 1,024 entries, as `ringside run` gives them, disks QEMU's 128. The plain column \
         is ext4 on a disk in the guest's own memory. What is shared lies on the host's tmpfs."
            .to_owned(),
    ]
}

fn turn(
    load: Load,
    column: &Column,
    machine: &mut Machine,
    config: &DocumentsConfig,
    found: &mut Collector,
) {
    let name = load.name();
    let (who, role) = (column.name.as_str(), column.role);
    if column.seat.is_err() {
        return;
    }
    match measure(load, column, machine, config) {
        Ok((reading, device_us)) => {
            found.add(&name, load.told(), who, role, reading.rate);
            found.add(&name, DEVICE, who, role, device_us);
        }
        Err(error) => {
            for told in [load.told(), DEVICE] {
                found.fail(&name, told, who, role, &with_causes(&error));
            }
        }
    }
}

fn measure(
    load: Load,
    column: &Column,
    machine: &mut Machine,
    config: &DocumentsConfig,
) -> Result<(Reading, f64), Error> {
    let used = |machine: &Machine| {
        let daemon = column.seat.as_ref().ok().and_then(|it| it.daemon.as_ref());
        let daemon = daemon.map(|it| it.processes().cost()).transpose();
        let daemon = daemon.map_err(Error::Measure)?.map_or(0, |it| it.cpu_ns);
        Ok::<_, Error>(machine.device_nanoseconds()? + daemon)
    };
    let before = used(machine)?;
    let said = machine.order(&load.order(column.place, config.measure))?;
    let nanoseconds = used(machine)?.saturating_sub(before);
    let reading = load.read(&said)?;
    Ok((reading, nanoseconds as f64 / 1e3 / reading.operations))
}

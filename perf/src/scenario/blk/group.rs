//! One workload on one target: everybody takes turns, round after round.

use super::contestant::{Contestant, Entry};
use super::error::{Error, TurnError};
use super::results::{Comparison, Outcome, Row, Sample, Summary};
use super::turn::Turns;
use super::workload::{Mode, Target, Workload};
use super::{Role, SystemCalls};
use crate::measure::Counter;
use crate::report::Progress;
use crate::scenario::order;

/// A contestant in one mode.
struct Seat<'a> {
    contestant: &'a Contestant,
    mode: Mode,
    samples: Vec<Sample>,
    system_calls: Option<SystemCalls>,
    failure: Option<String>,
}

/// One workload's rounds.
pub(super) struct Group<'a> {
    target: Target,
    workload: Workload,
    seats: Vec<Seat<'a>>,
}

impl<'a> Group<'a> {
    pub(super) fn new(
        target: Target,
        workload: Workload,
        contestants: &'a [Contestant],
        modes: &[Mode],
    ) -> Self {
        let seats = contestants.iter().flat_map(|contestant| {
            contestant.modes(modes).iter().map(move |&mode| Seat {
                contestant,
                mode,
                samples: Vec::new(),
                system_calls: None,
                failure: None,
            })
        });
        Self {
            target,
            workload,
            seats: seats.collect(),
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.target, self.workload.name())
    }

    /// A B C, C B A, then the counted runs.
    pub(super) fn run(
        &mut self,
        turns: &Turns<'_>,
        counter: Option<&Counter>,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let name = self.name();
        for round in 0..turns.config.run.rounds {
            for place in order(round, self.seats.len()) {
                let seat = &mut self.seats[place];
                progress.say(&name, &seat.told());
                seat.take_turn(turns, round)?;
                progress.advance(1);
            }
        }
        if let Some(counter) = counter {
            for seat in &mut self.seats {
                progress.say(&name, "counting system calls");
                seat.count(turns, counter)?;
            }
        }
        Ok(())
    }

    /// What came out, with our daemon compared.
    pub(super) fn rows(self) -> Vec<Row> {
        let (target, workload) = (self.target, self.workload);
        let rows = self
            .seats
            .into_iter()
            .map(|seat| seat.row(target, workload));
        let mut rows: Vec<Row> = rows.collect();
        for index in 0..rows.len() {
            if rows[index].role == Role::Ours {
                rows[index].against_peer = against(&rows, index, Role::Peer);
                rows[index].against_fio = against(&rows, index, Role::Limit);
            }
        }
        rows
    }
}

/// Compares a row with the quickest of that role in its mode.
fn against(rows: &[Row], ours: usize, role: Role) -> Option<Comparison> {
    let ours = &rows[ours];
    let rate = |row: &Row| {
        row.outcome
            .summary()
            .map_or(0.0, |summary| summary.iops.median)
    };
    let rivals = rows.iter().filter(|row| {
        let same_mode = row.mode == ours.mode || role == Role::Limit;
        // Only one of fio's engines keeps the same depth.
        let limit = role != Role::Limit || row.contestant == super::line_up::FIO_IO_URING;
        row.role == role && same_mode && limit && row.outcome.summary().is_some()
    });
    let best = rivals.max_by(|left, right| rate(left).total_cmp(&rate(right)))?;
    Comparison::of(ours.outcome.samples(), best)
}

impl Seat<'_> {
    fn told(&self) -> String {
        format!("{} {}", self.contestant.name, self.mode)
    }

    fn take_turn(&mut self, turns: &Turns<'_>, round: u32) -> Result<(), Error> {
        turns.interrupt.check()?;
        if let (Ok(entry), None) = (&self.contestant.entry, &self.failure) {
            match turns.take(entry, self.mode, round) {
                Ok(sample) => self.samples.push(sample),
                Err(error) => self.fail(&error)?,
            }
        }
        Ok(())
    }

    fn count(&mut self, turns: &Turns<'_>, counter: &Counter) -> Result<(), Error> {
        if let (Ok(Entry::Daemon(daemon)), None) = (&self.contestant.entry, &self.failure) {
            match turns.count(daemon, self.mode, counter) {
                Ok(system_calls) => self.system_calls = Some(system_calls),
                // The rounds' figures stand without it.
                Err(TurnError::Count(error)) => eprintln!("{}: {error}", self.told()),
                Err(error) => self.fail(&error)?,
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &TurnError) -> Result<(), Error> {
        if let Some(interrupted) = error.interrupted() {
            return Err(interrupted.into());
        }
        self.failure = Some(error.told());
        Ok(())
    }

    fn row(self, target: Target, workload: Workload) -> Row {
        let summary = Summary::of(&self.samples, workload.block);
        let outcome = Outcome::of(
            &self.contestant.entry,
            self.failure,
            (self.samples, summary),
            self.system_calls,
        );
        Row {
            target,
            name: workload.name(),
            workload,
            mode: self.mode,
            contestant: self.contestant.name.clone(),
            role: self.contestant.role,
            outcome,
            against_peer: None,
            against_fio: None,
        }
    }
}

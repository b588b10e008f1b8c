//! One workload on one target: everybody takes turns, round after round.

use super::contestant::Contestant;
use super::error::{Error, TurnError};
use super::results::{Comparison, Outcome, Row, Sample, Summary};
use super::turn::Turns;
use super::workload::{Target, Workload};
use super::{Role, SystemCalls};
use crate::measure::Counter;
use crate::report::Progress;
use crate::scenario::order;

struct Seat<'a> {
    contestant: &'a Contestant,
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
    pub(super) fn new(target: Target, workload: Workload, contestants: &'a [Contestant]) -> Self {
        let seats = contestants.iter().filter(|it| it.takes_part(workload));
        let seats = seats.map(|contestant| Seat {
            contestant,
            samples: Vec::new(),
            system_calls: None,
            failure: None,
        });
        Self {
            target,
            workload,
            seats: seats.collect(),
        }
    }

    /// A B C, C B A, then the counted runs.
    pub(super) fn run(
        &mut self,
        turns: &Turns<'_>,
        counter: Option<&Counter>,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let name = format!("{}/{}", self.target, self.workload.name());
        for round in 0..turns.config.run.rounds {
            for place in order(round, self.seats.len()) {
                let seat = &mut self.seats[place];
                progress.say(&name, &seat.contestant.name);
                seat.take_turn(turns)?;
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
                let others = rows.iter().filter(|row| row.role != Role::Ours);
                let against =
                    others.filter_map(|row| Comparison::of(rows[index].outcome.samples(), row));
                rows[index].against = against.collect();
            }
        }
        rows
    }
}

impl Seat<'_> {
    fn take_turn(&mut self, turns: &Turns<'_>) -> Result<(), Error> {
        turns.interrupt.check()?;
        if let (Ok(entry), None) = (&self.contestant.entry, &self.failure) {
            match turns.take(entry) {
                Ok(sample) => self.samples.push(sample),
                Err(error) => self.fail(&error)?,
            }
        }
        Ok(())
    }

    fn count(&mut self, turns: &Turns<'_>, counter: &Counter) -> Result<(), Error> {
        if let (Ok(entry), None) = (&self.contestant.entry, &self.failure) {
            match turns.count(entry, counter) {
                Ok(system_calls) => self.system_calls = system_calls,
                // The rounds' figures stand without it.
                Err(TurnError::Count(error)) => eprintln!("{}: {error}", self.contestant.name),
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
        let summary = Summary::of(&self.samples);
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
            contestant: self.contestant.name.clone(),
            role: self.contestant.role,
            outcome,
            against: Vec::new(),
        }
    }
}

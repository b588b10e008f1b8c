//! One workload on one target: everybody takes turns, round after round.

use super::contestant::{Contestant, Entry};
use super::error::{Error, TurnError};
use super::results::{Comparison, Outcome, Row, Sample, Summary};
use super::turn::Turns;
use super::workload::{Cache, Load, Target, Workload};
use super::{Role, SystemCalls};
use crate::measure::Counter;
use crate::report::{Progress, with_causes};
use crate::scenario::order;

/// A contestant with one way of caching.
struct Seat<'a> {
    contestant: &'a Contestant,
    cache: Cache,
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
        caches: &'a [Cache],
    ) -> Self {
        let seats = contestants
            .iter()
            .filter(|it| it.takes_part(workload))
            .flat_map(|contestant| {
                let caches = contestant.caches(caches).iter();
                caches.map(move |&cache| Seat {
                    contestant,
                    cache,
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

    /// A B C, C B A, then the counted runs.
    pub(super) fn run(
        &mut self,
        turns: &Turns<'_>,
        counter: Option<&Counter>,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let name = format!("{}/{}", self.target, self.workload.name());
        if let (Load::GitStatus, Some(reason)) = (self.workload.load, &turns.ground.no_git) {
            for seat in &mut self.seats {
                seat.failure = Some(reason.clone());
            }
        }
        for round in 0..turns.config.run.rounds {
            for place in order(round, self.seats.len()) {
                let seat = &mut self.seats[place];
                progress.say(&name, &seat.told());
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
            if rows[index].is_ours() {
                rows[index].against_peer = best_peer(&rows, index);
            }
        }
        rows
    }
}

/// Compares a row with the quickest peer with the same cache.
fn best_peer(rows: &[Row], ours: usize) -> Option<Comparison> {
    let ours = &rows[ours];
    let rate = |row: &Row| {
        row.outcome
            .summary()
            .map_or(0.0, |summary| summary.rate.median)
    };
    let rivals = rows.iter().filter(|row| {
        row.role == Role::Peer && row.cache == ours.cache && row.outcome.summary().is_some()
    });
    let best = rivals.max_by(|left, right| rate(left).total_cmp(&rate(right)))?;
    Comparison::of(ours.outcome.samples(), best)
}

impl<'a> Seat<'a> {
    fn told(&self) -> String {
        format!("{} {}", self.contestant.name, self.cache)
    }

    /// What it is started with, unless it has failed.
    fn entry(&self) -> Option<&'a Entry> {
        match self.failure {
            None => self.contestant.entry.as_ref().ok(),
            Some(_) => None,
        }
    }

    fn take_turn(&mut self, turns: &Turns<'_>) -> Result<(), Error> {
        turns.interrupt.check()?;
        if let Some(entry) = self.entry() {
            match turns.take(self.contestant, entry, self.cache) {
                Ok(sample) => self.samples.push(sample),
                Err(error) => self.fail(&error)?,
            }
        }
        Ok(())
    }

    fn count(&mut self, turns: &Turns<'_>, counter: &Counter) -> Result<(), Error> {
        turns.interrupt.check()?;
        if let Some(entry) = self.entry() {
            match turns.count(self.contestant, entry, self.cache, counter) {
                Ok(system_calls) => self.system_calls = system_calls,
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
        self.failure = Some(with_causes(error));
        Ok(())
    }

    fn row(self, target: Target, workload: Workload) -> Row {
        let summary = Summary::of(&self.samples, workload.block());
        let outcome = Outcome::of(
            &self.contestant.entry,
            self.failure,
            (self.samples, summary),
            self.system_calls,
        );
        Row {
            target,
            name: workload.name(),
            load: workload.load,
            cache: self.cache,
            contestant: self.contestant.name.clone(),
            role: self.contestant.role,
            queues: self.contestant.queues,
            outcome,
            against_peer: None,
        }
    }
}

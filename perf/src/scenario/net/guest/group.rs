//! One load on one kind of guest: everybody takes turns, round after round.

use super::line_up::Contestant;
use super::results::{GuestComparison, GuestOutcome, GuestRow, GuestSample, GuestSummary};
use super::turn::Turns;
use crate::report::Progress;
use crate::scenario::net::Role;
use crate::scenario::net::error::Error;
use crate::scenario::net::workload::Target;
use crate::scenario::order;

/// One load's rounds.
pub(crate) struct Group<'a> {
    target: Target,
    seats: Vec<Taken<'a>>,
}

struct Taken<'a> {
    contestant: &'a Contestant,
    samples: Vec<GuestSample>,
    failure: Option<String>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(target: Target, contestants: &'a [Contestant]) -> Self {
        let seats = contestants.iter().map(|contestant| Taken {
            contestant,
            samples: Vec::new(),
            failure: None,
        });
        Self {
            target,
            seats: seats.collect(),
        }
    }

    /// A B C, C B A.
    pub(crate) fn run(&mut self, turns: &Turns<'_>, progress: &mut Progress) -> Result<(), Error> {
        let name = format!("{}/{}", self.target, turns.load.name());
        for round in 0..turns.config.run.rounds {
            for place in order(round, self.seats.len()) {
                let seat = &mut self.seats[place];
                progress.say(&name, &seat.contestant.name);
                seat.take_turn(turns)?;
                progress.advance(1);
            }
        }
        Ok(())
    }

    /// What came out, with our daemon compared.
    pub(crate) fn rows(self, turns: &Turns<'_>) -> Vec<GuestRow> {
        let (target, load) = (self.target, turns.load);
        let row = |seat: Taken<'_>| {
            let summary = GuestSummary::of(&seat.samples);
            let contestant = seat.contestant;
            GuestRow {
                target,
                load,
                contestant: contestant.name.clone(),
                role: contestant.role,
                outcome: GuestOutcome::of(
                    &contestant.entry,
                    seat.failure,
                    (seat.samples, summary),
                    None,
                ),
                against: Vec::new(),
            }
        };
        let mut rows: Vec<GuestRow> = self.seats.into_iter().map(row).collect();
        let of_ours = rows.iter().position(|row| row.role == Role::Ours);
        if let Some(ours) = of_ours {
            let others = rows.iter().filter(|row| row.role != Role::Ours);
            let samples = rows[ours].outcome.samples();
            let against = others.filter_map(|row| GuestComparison::of(samples, row));
            rows[ours].against = against.collect();
        }
        rows
    }
}

impl Taken<'_> {
    fn take_turn(&mut self, turns: &Turns<'_>) -> Result<(), Error> {
        turns.interrupt.check()?;
        if let (Ok(entry), None) = (&self.contestant.entry, &self.failure) {
            match turns.take(entry) {
                Ok(sample) => self.samples.push(sample),
                Err(error) => {
                    if let Some(interrupted) = error.interrupted() {
                        return Err(interrupted.into());
                    }
                    self.failure = Some(error.told());
                }
            }
        }
        Ok(())
    }
}

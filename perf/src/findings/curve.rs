//! Figures along something that grows: requests in flight, queues, the size of files, guests; or the share of
//! requests that took no longer.

use serde::{Deserialize, Serialize};

use super::collector::or_push;
use super::{Better, Entry, Seat, Teller, Told};
use crate::scenario::Role;

/// A figure of every contestant, at several points.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Curve {
    /// What grows.
    pub along: String,
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// Which way it should go.
    pub better: Better,
    /// The points, from the left to the right.
    pub at: Vec<String>,
    /// A line for each contestant.
    pub lines: Vec<Line>,
}

/// A contestant's part of a curve.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
    /// Its name.
    pub who: String,
    /// What it is in the comparison.
    pub role: Role,
    /// For each point a value of each round; none where it was not measured.
    pub points: Vec<Vec<f64>>,
}

impl Curve {
    /// A curve without lines.
    pub(crate) fn new(along: &str, told: Told, at: Vec<String>) -> Self {
        Self {
            along: along.to_owned(),
            what: told.what.to_owned(),
            unit: told.unit.to_owned(),
            better: told.better,
            at,
            lines: Vec::new(),
        }
    }

    /// Adds values of one contestant at one point. A point that the curve does not have is left out.
    pub(crate) fn add(&mut self, who: &str, role: Role, at: &str, values: &[f64]) {
        let Some(place) = self.at.iter().position(|it| it == at) else {
            return;
        };
        let points = self.at.len();
        let line = or_push(
            &mut self.lines,
            |it| it.who == who,
            || Line {
                who: who.to_owned(),
                role,
                points: vec![Vec::new(); points],
            },
        );
        line.points[place].extend_from_slice(values);
    }

    /// Of entries that are points of one line, as a figure of the `growth` scenario has them.
    pub(crate) fn of_steps(
        along: &str,
        figure: &super::Figure,
        (who, role): (&str, Role),
        name: impl Fn(&Entry) -> String,
    ) -> Self {
        let mut curve = Self {
            along: along.to_owned(),
            what: figure.what.clone(),
            unit: figure.unit.clone(),
            better: figure.better,
            at: figure.entries.iter().map(&name).collect(),
            lines: Vec::new(),
        };
        for entry in &figure.entries {
            curve.add(who, role, &name(entry), &entry.samples);
        }
        curve
    }
}

/// Rows of one load that differ in how much of something there was.
pub(super) struct Scaled<'a, S, M> {
    /// The point.
    pub(super) at: u32,
    /// Who, at that point.
    pub(super) seat: Seat<'a, S, M>,
}

/// A curve for each figure, if there are more than two points; a point is told by `name`.
pub(super) fn scaling<S, M>(
    along: &str,
    mut rows: Vec<Scaled<'_, S, M>>,
    tellers: &[Teller<'_, S>],
    name: impl Fn(u32) -> String,
) -> Vec<Curve> {
    rows.sort_by_key(|row| row.at);
    let mut at: Vec<u32> = rows.iter().map(|row| row.at).collect();
    at.dedup();
    if at.len() <= 2 {
        return Vec::new();
    }
    let at: Vec<String> = at.into_iter().map(&name).collect();
    let curve = |teller: &Teller<'_, S>| {
        let mut curve = Curve::new(along, teller.told(), at.clone());
        for Scaled { at, seat } in &rows {
            let values = seat.outcome.samples().iter().filter_map(teller.of);
            let values: Vec<f64> = values.collect();
            if !values.is_empty() {
                curve.add(&seat.who, seat.role, &name(*at), &values);
            }
        }
        curve
    };
    let curves = tellers.iter().map(curve);
    curves.filter(|it| !it.lines.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::fixture::RATE;

    #[test]
    fn values_find_their_point_whoever_comes_first() {
        let at = ["1", "2", "4"].map(str::to_owned).to_vec();
        let mut curve = Curve::new("queues", RATE, at);
        curve.add("theirs", Role::Peer, "4", &[3.0]);
        curve.add("ours", Role::Ours, "1", &[1.0, 2.0]);
        curve.add("theirs", Role::Peer, "1", &[5.0]);
        curve.add("theirs", Role::Peer, "8", &[9.0]);
        let points: Vec<_> = curve.lines.iter().map(|it| it.points.clone()).collect();
        assert_eq!(
            points,
            [
                vec![vec![5.0], vec![], vec![3.0]],
                vec![vec![1.0, 2.0], vec![], vec![]]
            ]
        );
    }
}

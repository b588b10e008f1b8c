//! The figures of a workload in numbers.

use std::fmt::Write;

use super::escape;
use super::number::number;
use crate::findings::{Entry, Figure, Group};
use crate::scenario::Role;
use crate::statistics::{Interval, Spread};

/// One figure of one contestant, in words.
pub(super) struct Line {
    pub(super) what: String,
    pub(super) who: String,
    pub(super) median: String,
    pub(super) spread: String,
    /// Ours by it, and where 95 of 100 draws put that.
    pub(super) ours_by_it: String,
}

/// All lines of a workload.
pub(super) fn lines(group: &Group) -> Vec<Line> {
    let figure = |figure: &Figure| {
        let lines = figure.entries.iter().map(|entry| line(figure, entry));
        lines.collect::<Vec<_>>()
    };
    group.figures.iter().flat_map(figure).collect()
}

fn line(figure: &Figure, entry: &Entry) -> Line {
    let spread = Spread::of(entry.samples.iter().copied());
    let range = spread.map(|it| format!("{}..{}", number(it.min), number(it.max)));
    Line {
        what: format!("{}, {}", figure.what, figure.unit),
        who: entry.who.clone(),
        median: spread.map_or("-".to_owned(), |it| number(it.median)),
        spread: match (range, &entry.failure) {
            (Some(range), Some(why)) => format!("{range}; a round failed: {why}"),
            (range, why) => range.or_else(|| why.clone()).unwrap_or_default(),
        },
        ours_by_it: ours_by(figure, entry).unwrap_or_default(),
    }
}

/// Of several forms of ours, the one that is called as the other is but for its name: with the same cache.
fn ours_by(figure: &Figure, entry: &Entry) -> Option<String> {
    if figure.entries.iter().all(|it| it.role == Role::Ours) {
        // Parts, or steps of growth: nobody to be held against.
        return None;
    }
    let form = |who: &str| who.split_once(", ").map(|(_, form)| form.to_owned());
    let ours = figure.entries.iter().filter(|it| it.role == Role::Ours);
    let ours = ours
        .filter(|it| form(&it.who) == form(&entry.who) && it.who != entry.who)
        .find(|it| !it.samples.is_empty())?;
    // Rounds behind a failure have lost their pairs.
    if ours.failure.is_some() || entry.failure.is_some() {
        return None;
    }
    let Interval { ratio, low, high } = Interval::paired(&ours.samples, &entry.samples)?;
    Some(format!("{ratio:.2} ({low:.2}..{high:.2})"))
}

pub(super) fn html(group: &Group) -> String {
    let mut table =
        "<div class=\"scroll\"><table>\n<tr><th>figure<th>contestant<th class=\"n\">median\
                     <th class=\"n\">min..max<th class=\"n\">ours by it (95 % of draws)</tr>\n"
            .to_owned();
    for line in lines(group) {
        let _ = writeln!(
            table,
            "<tr><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
            escape(&line.what),
            escape(&line.who),
            line.median,
            escape(&line.spread),
            line.ours_by_it
        );
    }
    table.push_str("</table></div>\n");
    table
}

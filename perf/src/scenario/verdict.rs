//! Aims, bounds and whether they are met.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::report::{Table, one_line};

/// A bound on a figure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// An aim and what was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Verdict {
    /// The aim.
    pub aim: String,
    /// Where: target, workload, mode.
    pub place: String,
    /// The bound.
    pub bound: String,
    /// What was measured.
    pub measured: Option<f64>,
    /// Whether the aim is met; nothing where it could not be measured.
    pub met: Option<bool>,
    /// Compared with whom, or why it could not be measured.
    pub note: String,
}

impl Bound {
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Below(bound) => value < bound,
        }
    }

    pub(super) fn told(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::Below(bound) => format!("< {bound}"),
        }
    }

    /// Held against a figure, or why there is none.
    pub(super) fn verdict(
        self,
        aim: &str,
        place: String,
        value: Result<(f64, String), String>,
    ) -> Verdict {
        let (measured, note) = match value {
            Ok((value, with)) => (Some(value), with),
            Err(reason) => (None, reason),
        };
        Verdict {
            aim: aim.to_owned(),
            place,
            bound: self.told(),
            measured,
            met: measured.map(|value| self.holds(value)),
            note,
        }
    }
}

/// The aims as a table: none is hidden.
pub(super) fn render(text: &mut String, verdicts: &[Verdict]) {
    let mut table = Table::new(
        3,
        &["verdict", "aim", "where", "bound", "measured", "against"],
    );
    for verdict in verdicts {
        let word = match verdict.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        let measured = verdict
            .measured
            .map_or("-".to_owned(), |it| format!("{it:.3}"));
        table.row(vec![
            word.to_owned(),
            verdict.aim.clone(),
            verdict.place.clone(),
            verdict.bound.clone(),
            measured,
            one_line(&verdict.note),
        ]);
    }
    let count = |met| verdicts.iter().filter(|it| it.met == met).count();
    let _ = write!(
        text,
        "\naims: {} met, {} missed, {} not measured\n{table}",
        count(Some(true)),
        count(Some(false)),
        count(None)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_and_none_is_hidden() {
        let verdict = |value| Bound::AtLeast(1.5).verdict("rate", "tmpfs".into(), value);
        let all = [
            verdict(Ok((2.0, "qsd".into()))),
            verdict(Ok((1.0, "qsd".into()))),
            verdict(Err("no qsd".into())),
        ];
        let mut text = String::new();
        render(&mut text, &all);
        assert!(
            text.contains("aims: 1 met, 1 missed, 1 not measured"),
            "{text}"
        );
        assert!(
            text.contains("MISSED") && text.contains("not measured  rate"),
            "{text}"
        );
    }
}

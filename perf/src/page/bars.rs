//! A figure as bars: the median's length, a whisker from the smallest to the largest, the value beside it.
//! Colours are the page's (CSS), so that they follow its light or dark form.

use std::fmt::Write;

use super::number::number;
use super::{class, count, escape};
use crate::findings::{Entry, Figure};
use crate::report::one_line;
use crate::statistics::Spread;

/// All in units of the drawing, which is as wide as the page lets it.
const WIDTH: f64 = 640.0;
const LINE: f64 = 34.0;
const LABEL: f64 = 13.0;
const BAR: f64 = 12.0;
/// Room for the longest bar; the rest is for its value.
const SPAN: f64 = 520.0;

/// The figure as an SVG image.
pub(super) fn bars(figure: &Figure) -> String {
    let largest = figure
        .entries
        .iter()
        .flat_map(|it| &it.samples)
        .copied()
        .fold(0.0_f64, f64::max);
    let height = LINE * count(figure.entries.len());
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(&figure.what)
    );
    for (place, entry) in figure.entries.iter().enumerate() {
        bar(&mut svg, LINE * count(place), entry, &figure.unit, largest);
    }
    svg.push_str("</svg>\n");
    svg
}

/// As much as fits; the table has it all.
fn beginning(why: &str) -> String {
    let words = one_line(why);
    match words.char_indices().nth(70) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words,
    }
}

fn bar(svg: &mut String, top: f64, entry: &Entry, unit: &str, largest: f64) {
    let who = escape(&entry.who);
    let _ = writeln!(
        svg,
        "<text x=\"0\" y=\"{}\">{who}</text>",
        top + LABEL - 3.0
    );
    let y = top + LABEL + 2.0;
    let Some(Spread {
        median, min, max, ..
    }) = Spread::of(entry.samples.iter().copied())
    else {
        let why = entry.failure.as_deref().unwrap_or("not measured");
        let _ = writeln!(
            svg,
            "<text class=\"failed\" x=\"0\" y=\"{}\">{}</text>",
            y + 10.0,
            escape(&beginning(why))
        );
        return;
    };
    let at = |value: f64| {
        if largest > 0.0 {
            value / largest * SPAN
        } else {
            0.0
        }
    };
    let class = class(entry.role);
    let middle = y + BAR / 2.0;
    let _ = write!(
        svg,
        "<rect class=\"{class}\" x=\"0\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
         <path class=\"whisker\" d=\"M{:.1} {middle}H{:.1}M{:.1} {}V{}M{:.1} {}V{}\"/>\n\
         <text class=\"value\" x=\"{:.1}\" y=\"{}\">{} {}</text>\n",
        at(median).max(1.0),
        at(min),
        at(max),
        at(min),
        middle - 3.0,
        middle + 3.0,
        at(max),
        middle - 3.0,
        middle + 3.0,
        at(max) + 6.0,
        y + BAR - 2.0,
        number(median),
        escape(unit),
    );
}

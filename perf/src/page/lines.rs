//! A curve: a line for each contestant through its medians, with whiskers from the smallest to the largest round.
//! Points stand side by side at equal distances: depths and sizes double from one to the next.

use std::fmt::Write;

use super::number::number;
use super::{class, count, escape};
use crate::findings::{Curve, Line};
use crate::scenario::Role;
use crate::statistics::Spread;

/// All in units of the drawing, which is as wide as the page lets it.
const WIDTH: f64 = 640.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 12.0;
const HEIGHT: f64 = 200.0;
/// Below the plot: the points' names, and what grows.
const FOOT: f64 = 44.0;
/// A contestant's line of the legend.
const NAME: f64 = 18.0;
/// Values further apart than that are drawn by their logarithm.
const WIDE: f64 = 30.0;
/// Other lines than ours are told apart by their dashes; so are several of ours.
const DASHES: [&str; 6] = ["none", "7 3", "2 3", "9 3 2 3", "14 3", "1 5"];

/// The curve as an SVG image.
pub(super) fn lines(curve: &Curve) -> String {
    let scale = Scale::of(curve);
    let legend = TOP + HEIGHT + FOOT;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">\n",
        legend + NAME * count(curve.lines.len()),
        escape(&curve.what)
    );
    for value in scale.ticks() {
        let y = scale.y(value);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>\
             <text class=\"value\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            number(value)
        );
    }
    for (index, at) in curve.at.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text class=\"value\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(curve, index),
            TOP + HEIGHT + 16.0,
            escape(at)
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"value\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        TOP + HEIGHT + 33.0,
        escape(&curve.along)
    );
    for (index, line) in curve.lines.iter().enumerate() {
        let earlier = curve.lines[..index].iter();
        let is_ours = |it: &Line| it.role == Role::Ours;
        let alike = earlier.filter(|it| is_ours(it) == is_ours(line)).count();
        let style = format!(
            "class=\"line {}\" stroke-dasharray=\"{}\"",
            class(line.role),
            DASHES[alike % DASHES.len()]
        );
        draw(&mut svg, curve, line, &scale, &style);
        let y = legend + NAME * count(index) + 8.0;
        let _ = writeln!(
            svg,
            "<path {style} d=\"M{LEFT} {y}H{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + 36.0,
            LEFT + 44.0,
            y + 4.0,
            escape(&line.who)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, curve: &Curve, line: &Line, scale: &Scale, style: &str) {
    let mut path = String::new();
    let mut whiskers = String::new();
    for (index, samples) in line.points.iter().enumerate() {
        let Some(spread) = Spread::of(samples.iter().copied()) else {
            continue;
        };
        let x = x(curve, index);
        let step = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{step}{x:.1} {:.1}", scale.y(spread.median));
        let _ = writeln!(
            svg,
            "<circle {style} cx=\"{x:.1}\" cy=\"{:.1}\" r=\"2\"/>",
            scale.y(spread.median)
        );
        let (low, high) = (scale.y(spread.min), scale.y(spread.max));
        let _ = write!(
            whiskers,
            "M{x:.1} {low:.1}V{high:.1}M{:.1} {low:.1}H{:.1}M{:.1} {high:.1}H{:.1}",
            x - 3.0,
            x + 3.0,
            x - 3.0,
            x + 3.0
        );
    }
    let _ = writeln!(
        svg,
        "<path {style} d=\"{path}\"/><path class=\"whisker\" d=\"{whiskers}\"/>"
    );
}

fn x(curve: &Curve, index: usize) -> f64 {
    let room = WIDTH - LEFT - RIGHT;
    let columns = count(curve.at.len().max(1));
    LEFT + room * (count(index) + 0.5) / columns
}

/// Where values stand.
struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    fn of(curve: &Curve) -> Self {
        let values = || {
            let points = curve.lines.iter().flat_map(|it| it.points.iter().flatten());
            points.copied().filter(|it| it.is_finite())
        };
        let high = values().fold(0.0, f64::max);
        let low = values().filter(|it| *it > 0.0).fold(high, f64::min);
        let is_log = low > 0.0 && high / low > WIDE;
        match is_log {
            true => Self {
                low: 10_f64.powf(low.log10().floor()),
                high: 10_f64.powf(high.log10().ceil()),
                is_log,
            },
            false => Self {
                low: 0.0,
                high: if high > 0.0 { high } else { 1.0 },
                is_log,
            },
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => value / self.high,
        };
        TOP + HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }

    /// Powers of ten, or some four round values.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let step = round(self.high / 4.0);
        let mut value = self.low;
        // Neither way makes more than some twenty.
        while value <= self.high * 1.001 && ticks.len() < 64 {
            ticks.push(value);
            value = if self.is_log {
                value * 10.0
            } else {
                value + step
            };
        }
        ticks
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter();
    let mut steps = steps.map(|it| it * power);
    steps.find(|it| *it >= value * 0.999).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{Better, Told};

    fn curve(points: &[&[f64]]) -> Curve {
        let told = Told {
            what: "latency & more",
            unit: "us",
            better: Better::Lower,
        };
        let at = points
            .iter()
            .enumerate()
            .map(|(index, _)| index.to_string());
        let mut curve = Curve::new("requests", told, at.collect());
        for (index, samples) in points.iter().enumerate() {
            curve.add("ringside", Role::Ours, &index.to_string(), samples);
        }
        curve
    }

    #[test]
    fn every_point_is_in_the_picture() {
        let svg = lines(&curve(&[&[10.0, 20.0], &[], &[40.0]]));
        // The largest stands at the top, half of it in the middle; what was not measured is left out.
        assert!(svg.contains(&format!("L527.3 {TOP:.1}")), "{svg}");
        assert!(svg.contains("M156.7 137.0"), "{svg}");
        assert!(svg.contains("latency &amp; more"), "{svg}");
    }

    #[test]
    fn what_is_far_apart_is_drawn_by_its_logarithm() {
        let scale = Scale::of(&curve(&[&[3.0], &[4000.0]]));
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert!((scale.y(100.0) - (TOP + HEIGHT / 2.0)).abs() < 0.01);
        let scale = Scale::of(&curve(&[&[3.0], &[40.0]]));
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
    }

    #[test]
    fn nothing_at_all_is_drawn_too() {
        assert!(lines(&curve(&[])).ends_with("</svg>\n"));
        assert!(lines(&curve(&[&[0.0]])).ends_with("</svg>\n"));
    }
}

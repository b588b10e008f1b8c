//! The same as Markdown: what a repository's page shows.

use std::fmt::Write;

use super::number::number;
use super::plots::Plot;
use super::table::lines;
use crate::findings::{Curve, Findings, Group};
use crate::statistics::Spread;

/// Drawings that the text shows, and the folder that they lie in, as seen from the text.
#[derive(Clone, Copy, Debug)]
pub struct Illustrations<'a> {
    /// Of each run's workloads ([`plots`](super::plots)).
    pub plots: &'a [Vec<Vec<Plot>>],
    /// Ends with a slash, or is empty.
    pub folder: &'a str,
}

/// The runs as Markdown.
#[must_use]
pub fn markdown(runs: &[Findings], illustrations: Option<Illustrations<'_>>) -> String {
    let mut text = "# Ringside, measured\n".to_owned();
    if let Some(run) = runs.first() {
        let _ = writeln!(text, "\n{}", run.host.lines().replace('\n', "  \n"));
    }
    for (place, run) in runs.iter().enumerate() {
        let _ = writeln!(text, "\n## {}\n\n{}", run.scenario, run.method.join(" "));
        if !run.complete {
            text.push_str("\n**The run was interrupted: workloads are missing.**\n");
        }
        for reason in &run.skipped {
            let _ = writeln!(text, "\nTook no part: {}", cell(reason));
        }
        aims(&mut text, run);
        for (index, group) in run.groups.iter().enumerate() {
            let _ = writeln!(text, "\n### {}", group.name);
            if let Some(Illustrations { plots, folder }) = illustrations {
                for plot in &plots[place][index] {
                    let _ = writeln!(text, "\n![{}]({folder}{})", plot.caption, plot.file);
                }
            }
            figures(&mut text, group);
            group.curves.iter().for_each(|it| curve(&mut text, it));
        }
    }
    text
}

fn figures(text: &mut String, group: &Group) {
    if group.figures.is_empty() {
        return;
    }
    text.push_str(
        "\n| figure | contestant | median | min..max | ours by it (95 % of draws) |\n\
         | --- | --- | --: | --: | --: |\n",
    );
    for line in lines(group) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            line.what,
            cell(&line.who),
            line.median,
            cell(&line.spread),
            line.ours_by_it
        );
    }
}

/// A line for each contestant, a column for each point.
fn curve(text: &mut String, curve: &Curve) {
    let _ = writeln!(
        text,
        "\n| {}, {}, along {} | {} |\n| ---{} |",
        cell(&curve.what),
        curve.unit,
        cell(&curve.along),
        curve.at.join(" | "),
        " | --:".repeat(curve.at.len())
    );
    for line in &curve.lines {
        let median = |samples: &Vec<f64>| {
            let spread = Spread::of(samples.iter().copied());
            spread.map_or("-".to_owned(), |it| number(it.median))
        };
        let medians: Vec<_> = line.points.iter().map(median).collect();
        let _ = writeln!(text, "| {} | {} |", cell(&line.who), medians.join(" | "));
    }
}

fn aims(text: &mut String, run: &Findings) {
    if run.verdicts.is_empty() {
        return;
    }
    text.push_str(
        "\n| | aim | where | bound | measured | against |\n| --- | --- | --- | --- | --: | --- |\n",
    );
    for it in &run.verdicts {
        let word = match it.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        };
        let measured = it.measured.map_or("-".to_owned(), |it| format!("{it:.3}"));
        let _ = writeln!(
            text,
            "| {word} | {} | {} | {} | {measured} | {} |",
            cell(&it.aim),
            cell(&it.place),
            it.bound,
            cell(&it.note)
        );
    }
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

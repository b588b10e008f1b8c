//! The same as Markdown: what a repository's page shows.

use std::fmt::Write;

use super::table::lines;
use crate::findings::Findings;

/// The runs as Markdown.
#[must_use]
pub fn markdown(runs: &[Findings]) -> String {
    let mut text = "# Ringside, measured\n".to_owned();
    if let Some(run) = runs.first() {
        let _ = writeln!(text, "\n{}", run.host.lines().replace('\n', "  \n"));
    }
    for run in runs {
        let _ = writeln!(text, "\n## {}\n\n{}", run.scenario, run.method.join(" "));
        if !run.complete {
            text.push_str("\n**The run was interrupted: workloads are missing.**\n");
        }
        for reason in &run.skipped {
            let _ = writeln!(text, "\nTook no part: {}", cell(reason));
        }
        aims(&mut text, run);
        for group in &run.groups {
            let _ = writeln!(
                text,
                "\n### {}\n\n| figure | contestant | median | min..max | ours by it (95 % of runs) |\n\
                 | --- | --- | --: | --: | --: |",
                group.name
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
    }
    text
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

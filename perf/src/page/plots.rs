//! Drawings as files of their own, for Markdown.

use std::collections::BTreeSet;

use super::{STYLE, bars, curve_of, lines};
use crate::findings::{Findings, Group};

/// A drawing.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Its file's name, unlike any other's.
    pub file: String,
    /// What it shows.
    pub caption: String,
    /// The image: SVG with colours for light and dark.
    pub svg: String,
}

/// What each workload is about, and its curves, run by run and workload by workload.
#[must_use]
pub fn plots(runs: &[Findings]) -> Vec<Vec<Vec<Plot>>> {
    let mut names = BTreeSet::new();
    let run = |run: &Findings| {
        let groups = run.groups.iter();
        groups
            .map(|group| of_group(&run.scenario, group, &mut names))
            .collect()
    };
    runs.iter().map(run).collect()
}

fn of_group(scenario: &str, group: &Group, names: &mut BTreeSet<String>) -> Vec<Plot> {
    let first = group.figures.first();
    let bars = first
        .filter(|it| curve_of(group, it).is_none())
        .map(|figure| {
            let caption = format!("{}: {}, {}", group.name, figure.what, figure.unit);
            (caption, bars::bars(figure))
        });
    let curves = group.curves.iter().map(|curve| {
        let caption = format!(
            "{}: {}, {}, along {}",
            group.name, curve.what, curve.unit, curve.along
        );
        (caption, lines::lines(curve))
    });
    let mut plot = |(caption, svg): (String, String)| Plot {
        file: free(&slug(&format!("{scenario} {caption}")), names),
        caption,
        svg: alone(&svg),
    };
    bars.into_iter().chain(curves).map(&mut plot).collect()
}

/// An image that needs no page around it.
fn alone(svg: &str) -> String {
    let named = svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
    named.replacen(">\n", &format!(">\n<style>\n{STYLE}</style>\n"), 1)
}

/// What every file system and every page takes for a name.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for letter in text.chars() {
        match letter {
            'a'..='z' | '0'..='9' => slug.push(letter),
            'A'..='Z' => slug.push(letter.to_ascii_lowercase()),
            _ if !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.truncate(100);
    slug.trim_matches('-').to_owned()
}

fn free(slug: &str, names: &mut BTreeSet<String>) -> String {
    let name = |count: usize| match count {
        1 => format!("{slug}.svg"),
        more => format!("{slug}-{more}.svg"),
    };
    let mut count = 1;
    while !names.insert(name(count)) {
        count += 1;
    }
    name(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::fixture::findings;
    use crate::scenario::Role;

    #[test]
    fn two_runs_of_one_scenario_have_files_of_their_own() {
        let run = findings(&[("ringside", Role::Ours, [1.0; 5])]);
        let plots = plots(&[run.clone(), run]).concat().concat();
        let files: Vec<_> = plots.iter().map(|it| it.file.as_str()).collect();
        let name = "blk-tmpfs-4k-randread-d1-requests-1-s";
        assert_eq!(files, [format!("{name}.svg"), format!("{name}-2.svg")]);
        for plot in plots {
            assert!(plot.svg.starts_with("<svg xmlns="), "{}", plot.svg);
            assert!(plot.svg.contains("prefers-color-scheme"), "{}", plot.svg);
        }
    }
}

//! Reports as one page for browsers, which needs nothing else, and as Markdown.

mod bars;
mod lines;
mod markdown;
mod number;
mod plots;
mod table;

use std::fmt::Write;

use crate::findings::{Curve, Figure, Findings, Group};
use crate::scenario::{Role, Verdict};

pub use markdown::{Illustrations, markdown};
pub use plots::{Plot, plots};

const STYLE: &str = include_str!("style.css");

/// The whole page.
#[must_use]
pub fn html(runs: &[Findings]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Ringside: measured</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Ringside, measured</h1>\n"
    );
    if let Some(run) = runs.first() {
        let facts = escape(&run.host.lines()).replace('\n', "<br>");
        let _ = writeln!(page, "<p class=\"soft\">{facts}</p>");
    }
    let met = |wanted| {
        let verdicts = runs.iter().flat_map(|run| &run.verdicts);
        verdicts.filter(|it| it.met == wanted).count()
    };
    let _ = writeln!(
        page,
        "<p>Aims: <span class=\"met\">{} met</span>, <span class=\"missed\">{} missed</span>, {} not measured. \
         Bars are medians; whiskers reach from the smallest to the largest round.</p>\n<nav>",
        met(Some(true)),
        met(Some(false)),
        met(None)
    );
    for place in 0..runs.len() {
        let (id, title) = heading(runs, place);
        let _ = writeln!(page, "<a href=\"#{id}\">{title}</a>");
    }
    page.push_str("</nav>\n");
    for (place, run) in runs.iter().enumerate() {
        let (id, title) = heading(runs, place);
        let _ = writeln!(page, "<h2 id=\"{id}\">{title}</h2>");
        scenario(&mut page, run);
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// A run's anchor and title: there may be several of a scenario.
fn heading(runs: &[Findings], place: usize) -> (String, String) {
    let scenario = escape(&runs[place].scenario);
    let earlier = runs[..place].iter();
    match earlier
        .filter(|it| it.scenario == runs[place].scenario)
        .count()
    {
        0 => (scenario.clone(), scenario),
        more => (
            format!("{scenario}-{}", more + 1),
            format!("{scenario}, run {}", more + 1),
        ),
    }
}

fn scenario(page: &mut String, run: &Findings) {
    let said = run.method.join(" ");
    let _ = writeln!(page, "<p class=\"soft\">{}</p>", escape(&said));
    if !run.complete {
        page.push_str("<p class=\"missed\">The run was interrupted: workloads are missing.</p>\n");
    }
    for reason in &run.skipped {
        let _ = writeln!(
            page,
            "<p class=\"soft\">Took no part: {}</p>",
            escape(reason)
        );
    }
    aims(page, &run.verdicts);
    for group in &run.groups {
        workload(page, group);
    }
}

fn workload(page: &mut String, group: &Group) {
    let _ = writeln!(page, "<h3>{}</h3>", escape(&group.name));
    let mut figures = group.figures.iter();
    let Some(first) = figures.next() else {
        // What is there for its curves alone shows them.
        group.curves.iter().for_each(|curve| draw(page, curve));
        return;
    };
    chart(page, group, first);
    page.push_str("<details><summary>all figures</summary>\n");
    figures.for_each(|figure| chart(page, group, figure));
    let others = group.curves.iter();
    let others = others.filter(|curve| group.figures.iter().all(|it| it.what != curve.what));
    others.for_each(|curve| draw(page, curve));
    page.push_str(&table::html(group));
    page.push_str("</details>\n");
}

/// A figure whose entries are points of a curve is drawn as that.
fn chart(page: &mut String, group: &Group, figure: &Figure) {
    if let Some(curve) = curve_of(group, figure) {
        return draw(page, curve);
    }
    picture(page, &bars::bars(figure), &figure.what, &figure.unit);
}

fn curve_of<'a>(group: &'a Group, figure: &Figure) -> Option<&'a Curve> {
    group.curves.iter().find(|it| it.what == figure.what)
}

fn draw(page: &mut String, curve: &Curve) {
    picture(page, &lines::lines(curve), &curve.what, &curve.unit);
}

fn picture(page: &mut String, svg: &str, what: &str, unit: &str) {
    let _ = writeln!(
        page,
        "<figure>\n{}<figcaption>{}, {}</figcaption>\n</figure>",
        svg,
        escape(what),
        escape(unit)
    );
}

fn aims(page: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    let count = |met| verdicts.iter().filter(|it| it.met == met).count();
    let _ = writeln!(
        page,
        "<details><summary>aims: <span class=\"met\">{} met</span>, <span class=\"missed\">{} missed</span>, \
         {} not measured</summary>\n<div class=\"scroll\"><table>\n\
         <tr><th><th>aim<th>where<th class=\"n\">bound<th class=\"n\">measured<th>against</tr>",
        count(Some(true)),
        count(Some(false)),
        count(None)
    );
    for it in verdicts {
        let (class, word) = match it.met {
            Some(true) => ("met", "met"),
            Some(false) => ("missed", "missed"),
            None => ("soft", "not measured"),
        };
        let measured = it.measured.map_or("-".to_owned(), |it| format!("{it:.3}"));
        let _ = writeln!(
            page,
            "<tr><td class=\"{class}\">{word}<td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{measured}<td>{}</tr>",
            escape(&it.aim),
            escape(&it.place),
            escape(&it.bound),
            escape(&it.note)
        );
    }
    page.push_str("</table></div></details>\n");
}

/// The style of a contestant's part of a drawing (`style.css`).
fn class(role: Role) -> &'static str {
    match role {
        Role::Ours => "ours",
        Role::OtherBuild => "other",
        Role::Peer => "peer",
        Role::Limit => "limit",
    }
}

/// For coordinates.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(0.0, f64::from)
}

/// Text that means itself in HTML and in its attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::fixture::findings;

    #[test]
    fn a_page_shows_every_contestant_and_means_what_it_says() {
        let run = findings(&[
            ("ringside", Role::Ours, [200.0, 210.0, 190.0, 200.0, 205.0]),
            (
                "a <b> & \"c\"",
                Role::Peer,
                [100.0, 105.0, 95.0, 100.0, 102.0],
            ),
        ]);
        let page = html(&[run.clone(), run]);
        assert!(
            page.contains("id=\"blk\"") && page.contains("id=\"blk-2\""),
            "{page}"
        );
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot;"), "{page}");
        assert!(!page.contains("a <b>"));
        // The longest whisker ends where the room for bars does.
        assert!(
            page.contains("class=\"ours\"") && page.contains("H520.0"),
            "{page}"
        );
        assert!(page.contains("2.00 (2.00.."), "{page}");
        assert!(
            !page.contains("http"),
            "the page needs nothing else: {page}"
        );
    }

    #[test]
    fn a_failure_and_a_missed_aim_are_seen() {
        let mut run = findings(&[("ringside", Role::Ours, [1.0; 5])]);
        run.groups[0].figures[0].entries[0].samples.clear();
        run.groups[0].figures[0].entries[0].failure = Some("it ended".to_owned());
        run.complete = false;
        run.verdicts.push(Verdict {
            aim: "rate".to_owned(),
            place: "tmpfs".to_owned(),
            bound: ">= 1.5".to_owned(),
            measured: Some(1.2),
            met: Some(false),
            note: "qsd".to_owned(),
        });
        let page = html(std::slice::from_ref(&run));
        assert!(
            page.contains("it ended") && page.contains("interrupted"),
            "{page}"
        );
        assert!(page.contains("<td class=\"missed\">missed"), "{page}");
        let text = markdown(&[run], None);
        assert!(
            text.contains("| **missed** | rate | tmpfs | >= 1.5 | 1.200 | qsd |"),
            "{text}"
        );
    }

    #[test]
    fn who_failed_in_a_round_is_told_and_not_paired() {
        let mut run = findings(&[
            ("ringside", Role::Ours, [200.0; 5]),
            ("qsd", Role::Peer, [100.0; 5]),
        ]);
        run.groups[0].figures[0].entries[1].failure = Some("it ended".to_owned());
        let text = markdown(&[run], None);
        let line = "| qsd | 100 | 100..100; a round failed: it ended |  |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn curves_are_on_the_page_and_in_the_text() {
        let mut run = findings(&[("ringside", Role::Ours, [1.0; 5])]);
        let told = crate::findings::Told {
            what: "latency",
            unit: "us",
            better: crate::findings::Better::Lower,
        };
        let at = ["50 %", "99 %"].map(str::to_owned).to_vec();
        let mut curve = Curve::new("share", told, at);
        curve.add("ringside", Role::Ours, "99 %", &[7.0, 8.0, 9.0]);
        run.groups[0].curves.push(curve);
        let page = html(std::slice::from_ref(&run));
        assert!(page.contains("class=\"line ours\""), "{page}");
        let runs = [run];
        let plots = plots(&runs);
        let illustrations = Illustrations {
            plots: &plots,
            folder: "plots/",
        };
        let text = markdown(&runs, Some(illustrations));
        assert!(
            text.contains("| latency, us, along share | 50 % | 99 % |"),
            "{text}"
        );
        assert!(text.contains("| ringside | - | 8.00 |"), "{text}");
        for plot in &plots[0][0] {
            assert!(text.contains(&format!("](plots/{})", plot.file)), "{text}");
        }
        assert_eq!(plots[0][0].len(), 2);
    }
}

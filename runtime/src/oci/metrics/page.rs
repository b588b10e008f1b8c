//! Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Families of metrics, each with its head and its samples.
#[derive(Default)]
pub(super) struct Page(BTreeMap<String, (String, Vec<String>)>);

impl Page {
    pub(super) fn add(&mut self, name: &str, kind: &str, help: &str, label: &str, value: &str) {
        let head = || format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        let family = self.0.entry(name.to_owned());
        let (_, samples) = family.or_insert_with(|| (head(), Vec::new()));
        samples.push(match label {
            "" => format!("{name} {value}\n"),
            label => format!("{name}{{{label}}} {value}\n"),
        });
    }

    /// Takes a daemon's page over, with one label more for each sample. A family's samples stand together whatever
    /// parts they are of: the format wants it so.
    pub(super) fn merge(&mut self, text: &str, label: &str) {
        let mut family = String::new();
        // No control characters: nothing of it moves a terminal's cursor.
        let lines = text
            .split('\n')
            .map(|line| line.replace(char::is_control, ""));
        for line in lines.filter(|line| !line.is_empty()) {
            if let Some(about) = line.strip_prefix("# ") {
                let mut words = about.split_whitespace();
                let (kind, name) = (words.next(), words.next().unwrap_or_default());
                if family != name {
                    name.clone_into(&mut family);
                    self.0.entry(family.clone()).or_default();
                }
                if let Some((head, samples)) = self.0.get_mut(&family)
                    && samples.is_empty()
                    && !head.contains(&format!("# {} ", kind.unwrap_or_default()))
                {
                    let _ = writeln!(head, "{line}");
                }
                continue;
            }
            let sample = match line.split_once('{') {
                Some((name, rest)) => format!("{name}{{{label},{rest}\n"),
                None => match line.split_once(' ') {
                    Some((name, value)) => format!("{name}{{{label}}} {value}\n"),
                    None => continue,
                },
            };
            self.0.entry(family.clone()).or_default().1.push(sample);
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (head, samples) in self.0.values().filter(|(_, samples)| !samples.is_empty()) {
            text.push_str(head);
            text.extend(samples.iter().map(String::as_str));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_several_parts_become_one() {
        let mut page = Page::default();
        let text = "# HELP r_x\x1b Xs\n# TYPE r_x counter\nr_x{queue=\"0\"} 1\nr_x 2\n# TYPE r_y gauge\nr_y 3\n";
        page.merge(text, "part=\"a\"");
        page.merge(text, "part=\"b\"");
        page.add("r_z", "gauge", "Z", "part=\"a\"", "4");
        page.add("r_z", "gauge", "Z", "", "5");
        let expected = "# HELP r_x Xs\n# TYPE r_x counter\n\
            r_x{part=\"a\",queue=\"0\"} 1\nr_x{part=\"a\"} 2\n\
            r_x{part=\"b\",queue=\"0\"} 1\nr_x{part=\"b\"} 2\n\
            # TYPE r_y gauge\nr_y{part=\"a\"} 3\nr_y{part=\"b\"} 3\n\
            # HELP r_z Z\n# TYPE r_z gauge\nr_z{part=\"a\"} 4\nr_z 5\n";
        assert_eq!(page.text(), expected);
    }
}

//! `ringside metrics`: one page for a pod, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::state::{Entry, StateRoot};
use super::{OciError, print, status};

/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest page of one part.
const LONGEST: u64 = 4 << 20;
/// Bytes of a page that /proc/PID/statm counts (getconf PAGESIZE on x86-64).
const PAGE: u64 = 4096;
/// Parts of a second that /proc/PID/stat counts (USER_HZ, always 100).
const TICKS: f64 = 100.0;

/// Families of metrics, each with its head and its samples.
#[derive(Default)]
struct Page(BTreeMap<String, (String, Vec<String>)>);

/// Prints the page.
pub(super) fn metrics(root: &StateRoot, id: &str) -> Result<(), OciError> {
    let (entry, record) = root.find(id)?;
    let stats = status::task(root, &entry, &record)?.stats()?;
    let first = match &record.sandbox {
        Some(sandbox) => root.entry(sandbox)?,
        None => entry,
    };
    let mut page = Page::default();
    let samples = [
        (
            "cpu_seconds_total",
            "counter",
            microseconds(stats.cpu.usage_usec),
        ),
        ("memory_bytes", "gauge", stats.memory.usage.to_string()),
        ("pids", "gauge", stats.pids.current.to_string()),
        (
            "oom_kills_total",
            "counter",
            stats.memory_events.oom_kill.to_string(),
        ),
    ];
    for (name, kind, value) in samples {
        let help = format!(
            "Of the container, as the agent has it: {}",
            name.replace('_', " ")
        );
        let name = format!("ringside_container_{name}");
        page.add(&name, kind, &help, &format!("container=\"{id}\""), &value);
    }
    parts(&first, &mut page);
    print(&page.text())
}

fn microseconds(number: u64) -> String {
    format!("{}.{:06}", number / 1_000_000, number % 1_000_000)
}

/// Every part of the pod: what its process uses, and what it says of itself if it has a metrics socket.
fn parts(first: &Entry, page: &mut Page) {
    let entries = fs::read_dir(first.pod_directory())
        .into_iter()
        .flatten()
        .flatten();
    let mut paths: Vec<_> = entries.map(|it| it.path()).collect();
    paths.sort();
    for path in paths {
        let part = path.file_stem().unwrap_or_default().display().to_string();
        let label = format!("part=\"{part}\"");
        match path.extension().and_then(|it| it.to_str()) {
            Some("pid") => process(&path, &label, page),
            Some("metrics") => match ask(&path) {
                Ok(text) => page.merge(&text, &label),
                Err(error) => tracing::warn!("{part} does not tell its metrics: {error}"),
            },
            _ => {}
        }
    }
}

fn process(file: &Path, label: &str, page: &mut Page) {
    let text = fs::read_to_string(file).unwrap_or_default();
    let Some(pid) = text.split_whitespace().next() else {
        return;
    };
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let resident = statm
        .split_whitespace()
        .nth(1)
        .and_then(|it| it.parse::<u64>().ok());
    if let Some(pages) = resident {
        let bytes = pages.saturating_mul(PAGE).to_string();
        let help = "Resident memory of a part's process";
        page.add("ringside_part_resident_bytes", "gauge", help, label, &bytes);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything; fields 14 and 15 count from behind its parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut times = fields
        .split_whitespace()
        .skip(11)
        .map_while(|it| it.parse::<u32>().ok());
    if let (Some(user), Some(system)) = (times.next(), times.next()) {
        let seconds = (f64::from(user) + f64::from(system)) / TICKS;
        let help = "Processor time of a part's process";
        let name = "ringside_part_cpu_seconds_total";
        page.add(name, "counter", help, label, &seconds.to_string());
    }
}

fn ask(socket: &Path) -> std::io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

impl Page {
    fn add(&mut self, name: &str, kind: &str, help: &str, label: &str, value: &str) {
        let head = || format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        let family = self.0.entry(name.to_owned());
        let (_, samples) = family.or_insert_with(|| (head(), Vec::new()));
        samples.push(format!("{name}{{{label}}} {value}\n"));
    }

    /// Takes a daemon's page over, with one label more for each sample. A family's samples stand together whatever
    /// parts they are of: the format wants it so.
    fn merge(&mut self, text: &str, label: &str) {
        let mut family = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
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

    fn text(&self) -> String {
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
        let text = "# HELP r_x Xs\n# TYPE r_x counter\nr_x{queue=\"0\"} 1\nr_x 2\n# TYPE r_y gauge\nr_y 3\n";
        page.merge(text, "part=\"a\"");
        page.merge(text, "part=\"b\"");
        page.add("r_z", "gauge", "Z", "part=\"a\"", "4");
        let expected = "# HELP r_x Xs\n# TYPE r_x counter\n\
            r_x{part=\"a\",queue=\"0\"} 1\nr_x{part=\"a\"} 2\n\
            r_x{part=\"b\",queue=\"0\"} 1\nr_x{part=\"b\"} 2\n\
            # TYPE r_y gauge\nr_y{part=\"a\"} 3\nr_y{part=\"b\"} 3\n\
            # HELP r_z Z\n# TYPE r_z gauge\nr_z{part=\"a\"} 4\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn times_are_exact() {
        assert_eq!(microseconds(1_000_001), "1.000001");
    }
}

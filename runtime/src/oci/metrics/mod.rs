//! `ringside metrics`: one page for a pod, in Prometheus' text format.

mod guest;
mod page;
mod vmm;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ringside_pod::identity::Identity;
use ringside_pod::{VMM_API, chain};

use self::page::Page;
use super::state::{Entry, Record, StateRoot};
use super::{OciError, print, status};

/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest page of one part.
const LONGEST: u64 = 4 << 20;
/// Bytes of a page that /proc/PID/statm counts (getconf PAGESIZE on x86-64).
const PAGE: u64 = 4096;
/// Parts of a second that /proc/PID/stat counts (USER_HZ, always 100).
const TICKS: f64 = 100.0;

/// Prints the page.
pub(super) fn metrics(root: &StateRoot, id: &str) -> Result<(), OciError> {
    let (entry, record) = root.find(id)?;
    let first = match &record.sandbox {
        Some(sandbox) => root.entry(sandbox)?,
        None => entry.clone(),
    };
    let mut page = Page::default();
    // Of the one that was asked for there must be figures; others of its pod may end at any moment.
    container(root, &entry, &record, &mut page)?;
    for (other, record) in root.all()? {
        let pod = record.sandbox.as_ref().unwrap_or(&other.id);
        if other.id != id && *pod == first.id {
            container(root, &other, &record, &mut page).unwrap_or_else(|error| {
                tracing::debug!("{}", chain(&error));
            });
        }
    }
    guest::add(&first, &mut page);
    parts(&first, &mut page);
    print(&page.text())
}

/// What a container uses.
fn container(
    root: &StateRoot,
    entry: &Entry,
    record: &Record,
    page: &mut Page,
) -> Result<(), OciError> {
    let stats = status::task(root, entry, record)?.stats()?;
    let (cpu, memory) = (stats.cpu.usage_usec, stats.memory.usage.to_string());
    let kills = stats.memory_events.oom_kill.to_string();
    let samples = [
        ("cpu_seconds_total", "counter", microseconds(cpu)),
        ("memory_bytes", "gauge", memory),
        ("pids", "gauge", stats.pids.current.to_string()),
        ("oom_kills_total", "counter", kills),
    ];
    let label = format!("container=\"{}\"", entry.id);
    for (name, kind, value) in samples {
        let words = name.replace('_', " ");
        let help = format!("Of the container, as the agent has it: {words}");
        let name = format!("ringside_container_{name}");
        page.add(&name, kind, &help, &label, &value);
    }
    Ok(())
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
            Some("metrics") => merge(ask(&path), &part, &label, page),
            _ if path.file_name().is_some_and(|name| name == VMM_API) => {
                merge(vmm::ask(&path), &part, &label, page);
            }
            _ => {}
        }
    }
}

fn merge(answer: std::io::Result<String>, part: &str, label: &str, page: &mut Page) {
    match answer {
        Ok(text) => page.merge(&text, label),
        Err(error) => tracing::warn!("{part} does not tell its metrics: {error}"),
    }
}

fn process(file: &Path, label: &str, page: &mut Page) {
    let Some(process) = Identity::read(file).filter(Identity::lives) else {
        return;
    };
    let pid = process.pid;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        assert_eq!(microseconds(1_000_001), "1.000001");
    }
}

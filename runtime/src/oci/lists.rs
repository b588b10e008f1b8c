//! Verbs that only look.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::holder::LOG;
use super::state::StateRoot;
use super::status::{self, Status};
use super::{OciError, print, print_json};
use crate::options::{ListFormat, ListOptions, PsOptions};

/// Bytes of each log that are shown; a part's own is no longer.
const LONGEST_LOG: u64 = 1 << 20;

/// `ringside state`.
pub(super) fn state(root: &StateRoot, id: &str) -> Result<(), OciError> {
    let (entry, record) = root.find(id)?;
    let status = Status::of(root, &entry, &record);
    print_json(&status::state(&entry, &record, status))
}

/// `ringside ps`.
pub(super) fn processes(root: &StateRoot, options: &PsOptions) -> Result<(), OciError> {
    let (entry, record) = root.find(&options.id)?;
    let pids = status::task(root, &entry, &record)?.pids()?;
    match options.format {
        ListFormat::Json => print(&format!("{}\n", json!(pids))),
        ListFormat::Table => {
            let lines = pids.iter().map(|pid| format!("{pid}\n"));
            print(&format!(
                "PID (in the guest)\n{}",
                lines.collect::<String>()
            ))
        }
    }
}

/// `ringside list`.
pub(super) fn list(root: &StateRoot, options: &ListOptions) -> Result<(), OciError> {
    let all = root.all()?;
    if options.quiet {
        let ids = all.iter().map(|(entry, _)| format!("{}\n", entry.id));
        return print(&ids.collect::<String>());
    }
    let states: Vec<Value> = all
        .iter()
        .map(|(entry, record)| status::state(entry, record, Status::of(root, entry, record)))
        .collect();
    match options.format {
        ListFormat::Json => print(&format!("{}\n", Value::from(states))),
        ListFormat::Table => print(&table(&states)),
    }
}

fn table(states: &[Value]) -> String {
    let names = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![names.map(str::to_ascii_uppercase)];
    rows.extend(states.iter().map(|state| {
        names.map(|name| match &state[name] {
            // No control characters: nothing of a bundle breaks the table.
            Value::String(text) => text.chars().filter(|it| !it.is_control()).collect(),
            other => other.to_string(),
        })
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..names.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// `ringside logs`: the shim's, then those of the pod's parts, each under its name.
pub(super) fn logs(root: &StateRoot, id: &str) -> Result<(), OciError> {
    let (entry, record) = root.find(id)?;
    let first = match &record.sandbox {
        Some(sandbox) => root.entry(sandbox)?,
        None => entry,
    };
    let mut files = vec![first.file(LOG)];
    let parts = fs::read_dir(first.pod_directory())
        .into_iter()
        .flatten()
        .flatten();
    let parts = parts.map(|it| it.path());
    let mut parts: Vec<PathBuf> = parts
        .filter(|path| path.extension().is_some_and(|it| it == "log"))
        .collect();
    parts.sort();
    files.extend(parts);
    for path in files {
        let name = path.file_stem().unwrap_or_default().display().to_string();
        let name = if name == LOG { "shim".to_owned() } else { name };
        print(&format!("==> {name} <==\n{}\n", last(&path).trim_end()))?;
    }
    Ok(())
}

/// The end of a file, without what would move a terminal's cursor: a guest wrote some of it.
fn last(path: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LOG)))?;
        let mut bytes = Vec::new();
        file.take(LONGEST_LOG).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: std::io::Result<Vec<u8>> = read();
    let text = match bytes {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    };
    text.chars()
        .filter(|it| !it.is_control() || matches!(it, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_straight_columns() {
        let state = |id: &str| {
            json!({
                "id": id, "pid": 7, "status": "running", "bundle": "/b\n", "created": "T", "owner": "0"
            })
        };
        let text = table(&[state("a"), state("longer")]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "ID      PID  STATUS   BUNDLE  CREATED  OWNER");
        assert_eq!(lines[1], "a       7    running  /b      T        0");
        assert_eq!(lines.len(), 3);
    }
}

//! What the kernel says of a daemon (proc(5)).

use std::fs;
use std::path::PathBuf;

use lab::process::Daemon;

/// One process.
pub struct Process(PathBuf);

impl Process {
    /// The one that serves.
    pub fn serving(daemon: &Daemon) -> Self {
        Self::of(daemon.serving_pid().unwrap())
    }

    pub fn of(pid: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A line of `status`.
    pub fn status(&self, field: &str) -> String {
        value(&self.text("status"), field)
    }

    /// A set of capabilities: a bit for each.
    pub fn capabilities(&self, field: &str) -> u64 {
        u64::from_str_radix(&self.status(field), 16).unwrap()
    }

    /// Names a namespace, the same for all processes in it.
    pub fn namespace(&self, kind: &str) -> PathBuf {
        fs::read_link(self.path("ns").join(kind)).unwrap()
    }

    /// What its descriptors are, but for standard input, output and error.
    pub fn descriptors(&self) -> Vec<(String, PathBuf)> {
        fs::read_dir(self.path("fd"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
            .filter(|(number, _)| !["0", "1", "2"].contains(&number.as_str()))
            .filter_map(|(number, path)| Some((number, fs::read_link(path).ok()?)))
            .collect()
    }

    /// A line of `status` of each thread, with the thread's name.
    pub fn threads(&self, field: &str) -> Vec<(String, String)> {
        let tasks = fs::read_dir(self.path("task")).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
            .map(|status| (value(&status, "Name"), value(&status, field)))
            .collect()
    }
}

fn value(status: &str, field: &str) -> String {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}"))
        .trim()
        .to_owned()
}

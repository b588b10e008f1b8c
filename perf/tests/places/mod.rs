//! Where a run under test makes its files, and how it is run.
#![allow(unreachable_pub, reason = "a module of several test binaries")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringside-perf");

/// Directories for everything that a run makes.
pub struct Places {
    pub tmpfs: TempDir,
    pub scratch: TempDir,
}

impl Places {
    pub fn new() -> Self {
        Self {
            tmpfs: TempDir::new_in("/dev/shm").unwrap(),
            scratch: TempDir::new_in("/var/tmp").unwrap(),
        }
    }

    /// The scenario with its places, and our daemon.
    pub fn arguments(&self, scenario: &str, ours: &Path) -> Vec<String> {
        vec![
            scenario.into(),
            format!("--ours={}", ours.display()),
            format!("--tmpfs={}", self.tmpfs.path().display()),
            format!("--scratch={}", self.scratch.path().display()),
        ]
    }

    /// Runs a smoke test; the report as JSON and as text.
    pub fn measure<R: DeserializeOwned>(
        &self,
        arguments: Vec<String>,
        options: &[&str],
    ) -> (R, String) {
        let results = TempDir::new().unwrap();
        let json = results.path().join("report.json");
        let output = Command::new(PROGRAM)
            .args(arguments)
            .arg("--smoke")
            .args(options)
            .arg("--json")
            .arg(&json)
            .env("TMPDIR", self.scratch.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let report = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        (report, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Fails if a file or a process that names the directories is left.
    pub fn assert_clean(&self) {
        for dir in [&self.tmpfs, &self.scratch] {
            let left: Vec<PathBuf> = fs::read_dir(dir)
                .unwrap()
                .map(|it| it.unwrap().path())
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
            let users = processes_naming(dir.path());
            assert!(users.is_empty(), "still running: {users:?}");
        }
    }
}

/// The command lines of processes that name a directory.
pub fn processes_naming(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let commands = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&words).replace('\0', " "))
        });
    commands.filter(|command| command.contains(&name)).collect()
}

//! `ringside` called as an OCI runtime, with a bundle and a state of a test's own.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Bench, eventually, text};

pub(crate) struct Engine {
    pub(crate) bench: Bench,
    folder: String,
}

impl Engine {
    pub(crate) fn new(process: Value) -> Self {
        let bench = Bench::new();
        let folder = bench.root().parent().unwrap().to_str().unwrap().to_owned();
        let engine = Self { bench, folder };
        fs::create_dir(engine.bench.path("pods")).unwrap();
        engine.ok(&["spec", "--bundle", engine.folder()]);
        engine.edit(|config| {
            config["root"] = json!({"path": engine.bench.root()});
            for (name, value) in process.as_object().unwrap() {
                config["process"][name] = value.clone();
            }
        });
        engine
    }

    /// Changes the bundle's specification.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let file = self.bench.path("config.json");
        let mut config = read_json(&file);
        change(&mut config);
        fs::write(file, config.to_string()).unwrap();
    }

    /// Another bundle with the same root, and a specification that differs.
    pub(crate) fn bundle(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let folder = self.bench.path(name);
        fs::create_dir(&folder).unwrap();
        let mut config = read_json(&self.bench.path("config.json"));
        change(&mut config);
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        folder.to_str().unwrap().to_owned()
    }

    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.env("RINGSIDE_PODS", self.bench.path("pods"));
        command.arg("--root").arg(self.bench.path("oci"));
        command.args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Fails, with exit code 1 and this in its words; the same is in `--log`.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], words: &str) {
        let log = self.bench.path("log.json");
        let mut all = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
        all.extend(arguments);
        let output = self.run(&all);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        let lines = fs::read_to_string(log).unwrap();
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(last["level"], "error");
        assert!(last["msg"].as_str().unwrap().contains(words), "{last}");
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.json(&["state", "c1"])["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Makes the container as an engine does: its streams are this child's, which ends before it.
    pub(crate) fn create(&self, options: &[&str]) -> (Child, i32) {
        let pid_file = self.bench.path("pid");
        let mut arguments = vec!["create", "--bundle", self.folder(), "--pid-file"];
        arguments.push(pid_file.to_str().unwrap());
        arguments.extend(options);
        arguments.push("c1");
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let status = child.wait_without_closing();
        if !status.success() {
            let mut said = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut said);
            panic!("create: {said}");
        }
        let pid = fs::read_to_string(pid_file).unwrap().parse().unwrap();
        (child, pid)
    }

    pub(crate) fn assert_nothing_left(&self) {
        eventually("processes are left", || self.bench.processes().is_empty());
        for folder in ["oci", "pods"] {
            let left: Vec<_> = fs::read_dir(self.bench.path(folder))
                .unwrap()
                .flatten()
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

trait WaitOpen {
    fn wait_without_closing(&mut self) -> std::process::ExitStatus;
}

impl WaitOpen for Child {
    /// `wait` closes standard input, which the container has by now.
    fn wait_without_closing(&mut self) -> std::process::ExitStatus {
        let stdin = self.stdin.take();
        let status = self.wait().unwrap();
        self.stdin = stdin;
        status
    }
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

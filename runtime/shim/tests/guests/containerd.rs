//! Debian's containerd with a configuration, a root and a socket of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use containerd_shim_protos::{Client, TaskClient};
use lab::containerd::configuration;
use lab::need;
use lab::scratch::Scratch;
use rustix::process::{Pid, Signal, kill_process};

use crate::{image, programs};

/// The image's name there.
pub(crate) const IMAGE: &str = "docker.io/library/box:box";
/// The same, to run as user 1000.
pub(crate) const USER_IMAGE: &str = "docker.io/library/box:user";

/// How long one `ctr` may take. A translated guest on a busy host is slow.
const PATIENCE: &str = "300";

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-ringside-v2");

/// A containerd, with an image of busybox.
pub(crate) struct Containerd {
    pub(crate) scratch: Scratch,
    process: Child,
    execs: AtomicU32,
}

/// What a `ctr` did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Its output, of a `ctr` that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{} {}", self.text(), self.err);
        self.text()
    }
}

impl Containerd {
    pub(crate) fn start(test: &str) -> Self {
        need::root().unwrap();
        need::program("containerd").unwrap();
        programs::need();
        // In memory: overlayfs does not stack on the overlay that a container's root may be.
        let scratch = Scratch::in_memory(test).unwrap();
        fs::write(scratch.join("config.toml"), configuration(scratch.path())).unwrap();
        for folder in ["pods", "logs"] {
            scratch.dir(folder).unwrap();
        }
        let keep = format!("[log]\ndirectory = {:?}\n", scratch.join("logs"));
        fs::write(scratch.join("ringside.toml"), keep).unwrap();
        let process = spawn(&scratch);
        let containerd = Self {
            scratch,
            process,
            execs: AtomicU32::new(0),
        };
        containerd.wait_until_it_answers();
        let tar = image::obtain(&containerd.scratch);
        let tar = tar.to_str().unwrap();
        containerd
            .ctr(&[
                "image",
                "import",
                "--base-name",
                "docker.io/library/box",
                tar,
            ])
            .ok();
        containerd
    }

    /// Ends it, as an upgrade does, and starts it again. Shims go on.
    pub(crate) fn restart(&mut self) {
        kill(self.process.id(), Signal::TERM);
        self.process.wait().unwrap();
        self.process = spawn(&self.scratch);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        eventually("containerd does not answer", || {
            self.ctr(&["version"]).code == 0
        });
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        // ctr passes SIGTERM on to the container.
        command.args(["-s", "KILL", PATIENCE, "ctr", "-a"]);
        command.arg(self.scratch.join("sock")).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Ran {
        self.ctr_with(arguments, b"")
    }

    /// With this as standard input.
    pub(crate) fn ctr_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            scope.spawn(|| stdin.map(|mut pipe| pipe.write_all(input)));
            child.wait_with_output().unwrap()
        });
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A `ctr` that goes on, with its output in a file.
    pub(crate) fn background(&self, arguments: &[&str], output: &Path) -> Child {
        let mut command = self.command(arguments);
        command.stdout(File::create(output).unwrap());
        command.spawn().unwrap()
    }

    /// `ctr run`'s arguments.
    pub(crate) fn run_arguments<'a>(
        id: &'a str,
        options: &[&'a str],
        command: &[&'a str],
    ) -> Vec<&'a str> {
        let runtime = ["run", "--runtime", "io.containerd.ringside.v2"];
        [&runtime, options, &[IMAGE, id], command].concat()
    }

    /// Runs a container to its end and removes it.
    pub(crate) fn run(&self, id: &str, options: &[&str], command: &[&str]) -> Ran {
        let options = [&["--rm"], options].concat();
        self.ctr(&Self::run_arguments(id, &options, command))
    }

    /// Starts a container that goes on.
    #[track_caller]
    pub(crate) fn run_on(&self, id: &str, options: &[&str]) {
        let options = [&["-d"], options].concat();
        let sleep = ["sleep", "100000"];
        self.ctr(&Self::run_arguments(id, &options, &sleep)).ok();
    }

    /// Runs a shell script in a container.
    pub(crate) fn exec(&self, id: &str, script: &str) -> Ran {
        self.exec_with(id, script, b"")
    }

    pub(crate) fn exec_with(&self, id: &str, script: &str, input: &[u8]) -> Ran {
        let exec = self.execs.fetch_add(1, Ordering::Relaxed).to_string();
        let arguments = ["task", "exec", "--exec-id", &exec, id, "sh", "-c", script];
        self.ctr_with(&arguments, input)
    }

    /// A task's state as `ctr task ls` has it.
    pub(crate) fn state(&self, id: &str) -> Option<String> {
        let list = self.ctr(&["task", "ls"]).ok();
        let line = list
            .lines()
            .find(|line| line.starts_with(&format!("{id} ")))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    /// Kills a task, waits for its end and removes it and its container.
    pub(crate) fn remove(&self, id: &str) {
        self.ctr(&["task", "kill", "-s", "9", id]);
        eventually("a killed task does not end", || {
            self.state(id).is_none_or(|state| state == "STOPPED")
        });
        self.ctr(&["task", "rm", id]);
        self.ctr(&["container", "rm", id]).ok();
    }

    /// The process of a part of a pod, named after its first container.
    pub(crate) fn part(&self, id: &str, part: &str) -> u32 {
        let path = self.pod(id).join(format!("{part}.pid"));
        let text = fs::read_to_string(path).unwrap();
        // Empty for a moment while it is written anew.
        let id = text.split_whitespace().next().unwrap_or("0");
        id.parse().unwrap()
    }

    /// The shim of a pod.
    pub(crate) fn shim(&self, id: &str) -> u32 {
        let sock = self.scratch.join("sock");
        let is_it = |line: &&(u32, String)| {
            line.1
                .contains(&format!("-id {id} -address {}", sock.display()))
        };
        let all = processes("containerd-shim-ringside-v2");
        all.iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no shim among {all:?}"))
            .0
    }

    /// A task's shim, for calls that ctr does not make.
    pub(crate) fn calls(&self, id: &str) -> TaskClient {
        let bundle = format!("state/io.containerd.runtime.v2.task/default/{id}");
        let address = fs::read_to_string(self.scratch.join(&bundle).join("address")).unwrap();
        TaskClient::new(Client::connect(&address).unwrap())
    }

    /// A pod's run directory.
    pub(crate) fn pod(&self, id: &str) -> PathBuf {
        self.scratch.join("pods").join(format!("default-{id}"))
    }

    /// Fails unless nothing of any pod is left: no process, no directory, no mount, no socket.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let folder = self.scratch.path().to_str().unwrap();
        let parts = || -> Vec<_> {
            let ours = processes(folder);
            ours.into_iter()
                .filter(|it| it.0 != self.process.id())
                .collect()
        };
        let deadline = Instant::now() + LONGEST;
        let pods = || {
            fs::read_dir(self.scratch.join("pods"))
                .unwrap()
                .flatten()
                .count()
        };
        while !(parts().is_empty() && pods() == 0) && Instant::now() < deadline {
            sleep(Duration::from_millis(50));
        }
        assert!(parts().is_empty(), "left: {:#?}", parts());
        assert_eq!(pods(), 0, "a pod's directory is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<_> = mounts
            .lines()
            .filter(|line| line.contains(folder))
            .collect();
        assert!(left.is_empty(), "mounted: {left:#?}");
    }

    /// containerd's log, which has the shims' lines, for a failed test's reader.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.scratch.join("log")).unwrap_or_default();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| !line.contains("loading plugin"))
            .collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// What the parts of all pods said, gone or not, and the guests' consoles.
    fn show_parts(&self) {
        let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        for pod in folders(&self.scratch.join("logs")) {
            for part in folders(&pod.path()) {
                let log = fs::read(part.path()).unwrap_or_default();
                let log = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]);
                eprintln!("--- {} ---\n{log}", part.path().display());
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd's log ends:\n{}", self.log());
            self.show_parts();
        }
        kill(self.process.id(), Signal::KILL);
        let _ = self.process.wait();
        // What a failed test left.
        for (id, _) in processes(self.scratch.path().to_str().unwrap_or("/nowhere")) {
            kill(id, Signal::KILL);
        }
        sleep(Duration::from_millis(100));
    }
}

fn spawn(scratch: &Scratch) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(scratch.join("log"))
        .unwrap();
    let folder = Path::new(SHIM).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    // It must not outlive a killed test.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(need::program("containerd").unwrap())
        .arg("-c")
        .arg(scratch.join("config.toml"))
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("RINGSIDE_PODS", scratch.join("pods"))
        .env("RINGSIDE_CONFIG", scratch.join("ringside.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command.spawn().unwrap()
}

/// Processes with `text` in their command line.
fn processes(text: &str) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text).then_some((id, line))
    })
    .collect()
}

pub(crate) fn kill(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have ended.
        let _ = kill_process(pid, signal);
    }
}

/// How long anything may take: a machine in the lab's machine on a busy host is slow.
const LONGEST: Duration = Duration::from_secs(150);

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(otherwise: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONGEST;
    while !is_so() {
        assert!(Instant::now() < deadline, "{otherwise}");
        sleep(Duration::from_millis(50));
    }
}

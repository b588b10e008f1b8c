//! Debian's containerd with a root and a socket of its own.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lab::containerd::configuration;
use lab::need;
use lab::process::Daemon;
use lab::scratch::Scratch;

use super::error::Error;
use super::image;
use crate::peer::find_ours;

const IMAGE: &str = "docker.io/library/box:box";
/// How long a container may take to its first output: a translated guest on a busy host is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// For what containerd does by itself.
const SOON: Duration = Duration::from_secs(30);

/// Who runs a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Runtime {
    Runc,
    /// Our shim, with this hypervisor of the configuration's.
    Ringside(&'static str),
}

/// A containerd, with an image of busybox. It ends with the value.
pub(super) struct Containerd {
    scratch: Scratch,
    /// Ended before the directory goes.
    process: Option<Daemon>,
}

/// A container that has said something.
pub(super) struct Running {
    pub(super) id: String,
    /// From before ctr's start to the first output.
    pub(super) said_after: Duration,
    ctr: Child,
}

impl Containerd {
    pub(super) fn start() -> Result<Self, Error> {
        need::root()?;
        let containerd = need::program("containerd")?;
        // In memory: overlayfs does not stack on the overlay that this host's root may be.
        let scratch = Scratch::in_memory("pods").map_err(|source| {
            let place = PathBuf::from("/dev/shm");
            Error::Write(place, source)
        })?;
        let config = scratch.join("config.toml");
        let pods = scratch.join("pods");
        fs::write(&config, configuration(scratch.path()))
            .and_then(|()| fs::create_dir(&pods))
            .map_err(|source| Error::Write(config.clone(), source))?;
        let shim = find_ours("containerd-shim-ringside-v2");
        let beside = shim.parent().unwrap_or(Path::new("/"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut process = Daemon::builder(containerd)
            .bound()
            .arg("-c")
            .arg(&config)
            .env("PATH", format!("{}:{path}", beside.display()))
            .env("RINGSIDE_PODS", pods.as_os_str())
            .spawn()?;
        process.wait_listening(&scratch.join("sock"), SOON)?;
        let this = Self {
            scratch,
            process: Some(process),
        };
        let tar = image::build(this.scratch.path())?.display().to_string();
        let base = ["--base-name", "docker.io/library/box"];
        this.ctr(&[&["image", "import"], &base[..], &[&tar]].concat())?;
        Ok(this)
    }

    /// Runs a container whose first process says something and stays, or ends, and waits for that word.
    pub(super) fn run(&self, runtime: Runtime, id: &str, script: &str) -> Result<Running, Error> {
        let mut command = self.command();
        command.args(["run", "--rm", "--runtime"]);
        match runtime {
            Runtime::Runc => command.arg("io.containerd.runc.v2"),
            Runtime::Ringside(hypervisor) => command
                .args(["io.containerd.ringside.v2", "--annotation"])
                .arg(format!("io.ringside.hypervisor={hypervisor}")),
        };
        command.args([IMAGE, id, "sh", "-c", script]);
        let began = Instant::now();
        let mut ctr = spawn(&mut command)?;
        match first_byte(&mut ctr) {
            true => Ok(Running {
                id: id.to_owned(),
                said_after: began.elapsed(),
                ctr,
            }),
            false => {
                let _ = ctr.kill();
                let said = ctr.wait_with_output();
                Err(Error::Silent {
                    id: id.to_owned(),
                    seconds: PATIENCE.as_secs(),
                    said: said.map_or_else(
                        |error| error.to_string(),
                        |it| String::from_utf8_lossy(&it.stderr).into_owned(),
                    ),
                })
            }
        }
    }

    /// Ends a container and waits until it is removed.
    pub(super) fn end(&self, mut running: Running) -> Result<(), Error> {
        // Gone already, where its process ended by itself.
        let _ = self.ctr(&["task", "kill", "-s", "9", &running.id]);
        let waited = running.ctr.wait();
        waited.map(drop).map_err(|source| Error::Run {
            program: "ctr",
            source,
        })
    }

    /// The shim of a container.
    pub(super) fn shim(&self, id: &str) -> Result<u32, Error> {
        let socket = self.scratch.join("sock").display().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut ids = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
        let is_it = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            let has = |wanted: &str| words.contains(&wanted.as_bytes());
            words
                .first()
                .is_some_and(|it| String::from_utf8_lossy(it).contains("containerd-shim-"))
                && has(id)
                && has(&socket)
        };
        ids.find(is_it).ok_or_else(|| Error::NoShim(id.to_owned()))
    }

    /// Where a pod says which processes its parts are.
    pub(super) fn pod(&self, id: &str) -> PathBuf {
        self.scratch.join("pods").join(format!("default-{id}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.scratch.join("sock"));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ctr(&self, arguments: &[&str]) -> Result<(), Error> {
        let output = self.command().args(arguments).output();
        let output = output.map_err(|source| Error::Run {
            program: "ctr",
            source,
        })?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::Tool {
                program: "ctr",
                said: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Ends before its directory goes.
        drop(self.process.take());
    }
}

fn spawn(command: &mut Command) -> Result<Child, Error> {
    command.spawn().map_err(|source| Error::Run {
        program: "ctr",
        source,
    })
}

/// Whether the process says something in time. The thread that reads ends with the process.
fn first_byte(child: &mut Child) -> bool {
    let Some(mut out) = child.stdout.take() else {
        return false;
    };
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut byte = [0];
        let came = out.read(&mut byte).is_ok_and(|bytes| bytes > 0);
        // Nobody waits any more where it came too late.
        let _ = said.send(came);
        let _ = std::io::copy(&mut out, &mut std::io::sink());
    });
    heard.recv_timeout(PATIENCE).unwrap_or(false)
}

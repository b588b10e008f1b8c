//! A throw-away machine with hardware virtualisation, on any host.
//!
//! QEMU translates a processor with AMD's SVM; in it Debian's kernel and `kvm-amd` give a
//! `/dev/kvm` that runs ring-0 code without interpreting it. The host's `/` is shared read-only by
//! our own virtiofsd, under a file system in memory, so a command finds all of the host's programs
//! and the test's own binaries; directories named by [`Machine::writable`] are shared with the
//! host. One command runs, its streams and its exit code come back, and the machine is gone.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lab::machine::Machine;
//!
//! let output = Machine::new(["sh", "-c", "ls -l /dev/kvm; uname -r"]).run()?.success()?;
//! assert!(output.contains("/dev/kvm"));
//! # Ok(())
//! # }
//! ```

mod boot;
mod daemons;
mod error;
mod here;
mod output;
mod qemu;
mod running;
mod streams;
mod turn;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use error::Error;
pub use output::Output;
pub use running::{Running, Stopper};
pub use streams::Streams;

use crate::guest::evidence;
use crate::need;
use output::Captured;
use turn::Turn;

/// A machine to be started, and what it needs: its memory, its processors, its directories, its
/// time.
#[derive(Clone, Debug)]
pub struct Machine {
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    memory_mib: u32,
    cpus: u16,
    writable: Vec<PathBuf>,
    modules: Vec<String>,
    limit: Duration,
}

impl Machine {
    /// A machine of 2 GiB and two CPUs for at most five minutes, which runs `command` in this
    /// process's working directory with its environment. On a test's second try (nextest) it has one CPU,
    /// whose translator has no races.
    #[must_use]
    pub fn new<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            environment: std::env::vars_os().collect(),
            folder: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            memory_mib: 2048,
            cpus: if is_another_try() { 1 } else { 2 },
            writable: Vec::new(),
            modules: Vec::new(),
            limit: Duration::from_secs(300),
        }
    }

    /// A machine that runs one ignored test of this process's test binary, with all it says
    /// ([`Output::passed`]).
    #[must_use]
    pub fn of_test(name: &str) -> Self {
        let this = std::env::current_exe().unwrap_or_default();
        let options = ["--exact", name, "--ignored", "--nocapture"];
        Self::new(std::iter::once(this.into_os_string()).chain(options.into_iter().map(Into::into)))
    }

    /// The machine's memory in MiB. The host must have it to spare.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// The number of CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u16) -> Self {
        self.cpus = cpus;
        self
    }

    /// Shares a directory of the host, so that what the command writes there stays.
    #[must_use]
    pub fn writable(mut self, directory: impl Into<PathBuf>) -> Self {
        self.writable.push(directory.into());
        self
    }

    /// Sets a variable of the command's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
        self
    }

    /// The command's working directory.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Loads a further module of the machine's kernel, with what it depends on.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Changes the time limit, from the machine's start to the command's end.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the command without input and collects its output.
    ///
    /// # Errors
    /// When the machine or the command cannot be started, a part of the machine dies, or the time
    /// limit passes; the error shows the ends of output and console.
    pub fn run(self) -> Result<Output, Error> {
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let streams = Streams::new(stdout.clone(), stderr.clone());
        let mut running = self.start(streams)?;
        let ended = running.wait();
        let console = running.console();
        let said = || stdout.text() + &stderr.text();
        match ended {
            Ok(code) => Ok(Output {
                code,
                stdout: stdout.take(),
                stderr: stderr.take(),
                console,
            }),
            Err(error) => Err(error.with_evidence(evidence(&said(), &console))),
        }
    }

    /// Starts the machine, which then runs until [`Running::wait`] returns or the value drops.
    /// Waits for another machine on this host to end first: two at once starve each other.
    ///
    /// The thread that calls this must live as long as the machine: the kernel kills it with the
    /// thread.
    ///
    /// # Errors
    /// When a part of it is missing or cannot be started.
    pub fn start(self, streams: Streams) -> Result<Running, Error> {
        let directories = self.check()?;
        let image = boot::image(&self.modules)?;
        let turn = Turn::take()?;
        let started = Instant::now();
        let shares = daemons::start(&directories)?;
        let initramfs = boot::initramfs(&image, &self.config(&shares))?;
        let (near, far) = streams::ports()?;
        let parts = qemu::Board {
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            kernel: &image.vmlinux,
            initramfs,
        }
        .start(far, shares)?;
        Running::watch(parts, near, streams, started, self.limit, turn)
    }

    /// What the host must have; the directories by their full paths.
    fn check(&self) -> Result<Vec<PathBuf>, Error> {
        need::root()?;
        need::memory_mib(self.memory_mib)?;
        if self.command.is_empty() {
            return Err(Error::NoCommand);
        }
        self.writable.iter().map(|path| directory(path)).collect()
    }
}

/// nextest counts a test's tries from 1.
fn is_another_try() -> bool {
    std::env::var_os("NEXTEST_ATTEMPT").is_some_and(|attempt| attempt != "1")
}

fn directory(path: &Path) -> Result<PathBuf, Error> {
    match path.canonicalize() {
        Ok(full) if full.is_dir() => Ok(full),
        _ => Err(Error::NoDirectory(path.to_owned())),
    }
}

//! A daemon under test: started, watched, ended.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::sys::spawn;

const POLL: Duration = Duration::from_millis(5);

/// Why a daemon could not be started or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The workspace's binary was not built.
    #[error("{} is not built: run `cargo build` for its package first", path.display())]
    NotBuilt {
        /// Where it would be.
        path: PathBuf,
    },
    /// It ended when it should have run.
    #[error("{name} ended with {status} before {awaited}; it said:\n{stderr}")]
    Ended {
        /// The program.
        name: String,
        /// What was waited for.
        awaited: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error.
        stderr: String,
    },
    /// It did not do in time what was waited for.
    #[error("{name}: no {awaited} within {timeout:?}; it said:\n{stderr}")]
    TimedOut {
        /// The program.
        name: String,
        /// What was waited for.
        awaited: String,
        /// How long.
        timeout: Duration,
        /// Its standard error so far.
        stderr: String,
    },
    /// A system call about the process failed.
    #[error("{name}: cannot {what}")]
    Os {
        /// The program.
        name: String,
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// How a daemon is started.
#[derive(Debug)]
pub struct DaemonBuilder {
    command: Command,
    program: PathBuf,
    inherited: Vec<OwnedFd>,
}

impl DaemonBuilder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Hands a descriptor to the daemon under its present number, which is added to `option`:
    /// `inherit("--fd", socket)` gives `--fd=7`.
    #[must_use]
    pub fn inherit(mut self, option: &str, fd: OwnedFd) -> Self {
        let number: RawFd = fd.as_raw_fd();
        self.command.arg(format!("{option}={number}"));
        self.inherited.push(fd);
        self
    }

    /// Starts the daemon in a process group of its own, with its output captured.
    ///
    /// # Errors
    /// When the program does not exist or cannot be run.
    pub fn spawn(mut self) -> Result<Daemon, Error> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.command.process_group(0);
        spawn::inherit(&mut self.command, &self.inherited);
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let start = |source| Error::Start {
            program: self.program.clone(),
            source,
        };
        let mut child = self.command.spawn().map_err(start)?;
        let stdout = Transcript::of(child.stdout.take());
        let stderr = Transcript::of(child.stderr.take());
        Ok(Daemon {
            child,
            name,
            stdout,
            stderr,
        })
    }

    /// Starts the daemon and waits until `socket` listens.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen within `timeout`.
    pub fn spawn_listening(self, socket: &Path, timeout: Duration) -> Result<Daemon, Error> {
        let mut daemon = self.spawn()?;
        daemon.wait_listening(socket, timeout)?;
        Ok(daemon)
    }
}

/// How a daemon ended, and what it had to say.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// All of its standard error.
    pub stderr: String,
    /// All of its standard output.
    pub stdout: String,
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    stdout: Transcript,
    stderr: Transcript,
}

impl Daemon {
    /// Prepares to start a program: `env!("CARGO_BIN_EXE_...")` in the daemon's own tests, or
    /// [`binary`] elsewhere.
    pub fn builder(program: impl Into<PathBuf>) -> DaemonBuilder {
        let program = program.into();
        DaemonBuilder {
            command: Command::new(&program),
            program,
            inherited: Vec::new(),
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the unix socket at `path` listens, without connecting to it: a vhost-user
    /// daemon serves one connection at a time and a probe would be it.
    ///
    /// # Errors
    /// When the daemon ends, or does not listen within `timeout`.
    pub fn wait_listening(&mut self, path: &Path, timeout: Duration) -> Result<(), Error> {
        let pid = self.pid();
        let awaited = format!("listening socket {}", path.display());
        self.wait_until(&awaited, timeout, |_| is_listening(path, pid))
    }

    /// Waits until the daemon's standard error contains `text`.
    ///
    /// # Errors
    /// When the daemon ends, or does not say it within `timeout`.
    pub fn wait_stderr(&mut self, text: &str, timeout: Duration) -> Result<(), Error> {
        self.wait_until(&format!("message `{text}`"), timeout, |d| {
            d.stderr().contains(text)
        })
    }

    fn wait_until(
        &mut self,
        awaited: &str,
        timeout: Duration,
        mut met: impl FnMut(&Self) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            // Seen before the condition is tested, so that a last word is not missed.
            let ended = self.try_wait()?;
            if met(self) {
                return Ok(());
            }
            let (name, awaited) = (self.name.clone(), awaited.to_owned());
            if let Some(status) = ended {
                let stderr = self.stderr.finish();
                return Err(Error::Ended {
                    name,
                    awaited,
                    status,
                    stderr,
                });
            }
            if Instant::now() >= deadline {
                return Err(Error::TimedOut {
                    name,
                    awaited,
                    timeout,
                    stderr: self.stderr(),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Whether the daemon runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What the daemon wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What the daemon wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Sends a signal to the daemon.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let sent = kill_process(Pid::from_child(&self.child), signal);
        sent.map_err(|errno| self.os("send it a signal", errno.into()))
    }

    /// Waits until the daemon ends by itself.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<Exit, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.try_wait()? {
                let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
                return Ok(Exit {
                    status,
                    stderr,
                    stdout,
                });
            }
            if Instant::now() >= deadline {
                let (name, stderr) = (self.name.clone(), self.stderr());
                return Err(Error::TimedOut {
                    name,
                    awaited: "exit".into(),
                    timeout,
                    stderr,
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the daemon to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> Result<Exit, Error> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
        }
        self.wait_exit(timeout)
    }

    /// Kills the daemon (SIGKILL) and its process group, and waits for it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        // Children that the daemon forked for its sandbox are in its group.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child
            .wait()
            .map(drop)
            .map_err(|source| self.os("wait for its end", source))
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        let status = self.child.try_wait();
        status.map_err(|source| self.os("ask for its state", source))
    }

    fn os(&self, what: &'static str, source: io::Error) -> Error {
        Error::Os {
            name: self.name.clone(),
            what,
            source,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.kill();
        }
    }
}

/// Finds a binary of the workspace next to the running test.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> Result<PathBuf, Error> {
    let test = std::env::current_exe().map_err(|source| Error::Os {
        name: name.into(),
        what: "find the test's path",
        source,
    })?;
    // target/debug/deps/test-0123 -> target/debug/name
    let dir = test.ancestors().nth(2).unwrap_or(Path::new("."));
    let path = dir.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::NotBuilt { path })
    }
}

/// Whether a unix socket of that file name is in the listening state (proc(5), `/proc/net/unix`),
/// seen from here or from the daemon's network namespace.
fn is_listening(path: &Path, pid: u32) -> bool {
    /// `__SO_ACCEPTCON` in the column of flags.
    const ACCEPTS: &str = "00010000";
    let Some(file_name) = path.file_name() else {
        return false;
    };
    let tables = [
        OsString::from("/proc/thread-self/net/unix"),
        format!("/proc/{pid}/net/unix").into(),
    ];
    let listens = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let accepts = fields.nth(3) == Some(ACCEPTS);
        accepts
            && fields
                .nth(3)
                .is_some_and(|bound| Path::new(bound).file_name() == Some(file_name))
    };
    path.exists()
        && tables.iter().any(|table| {
            fs::read_to_string(table).is_ok_and(|sockets| sockets.lines().any(listens))
        })
}

/// What a pipe delivered so far.
#[derive(Debug)]
struct Transcript {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Transcript {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = pipe.map(|pipe| thread::spawn(move || copy(pipe, &sink)));
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All of it. A grandchild that keeps the pipe open is not waited for.
    fn finish(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_millis(500);
        if let Some(reader) = self.reader.take() {
            while !reader.is_finished() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        self.text()
    }
}

fn copy(mut pipe: impl Read, sink: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        sink.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(&buffer[..len]);
    }
}

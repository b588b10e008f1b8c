//! A daemon under test: started, watched, ended.

mod builder;
mod error;
mod group;
mod listening;
mod transcript;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

pub use builder::DaemonBuilder;
pub use error::Error;
pub use group::group_is_alive;
use listening::is_listening;
pub(crate) use transcript::Transcript;

const POLL: Duration = Duration::from_millis(5);
/// A killed process that the kernel is writing back for takes a while to end.
const GROUP_END: Duration = Duration::from_secs(5);

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
    /// [`binary`] elsewhere. If the folder `RINGSIDE_PROGRAMS` has one of that name it is started instead:
    /// `make asan` and `make tsan` put theirs there.
    pub fn builder(program: impl Into<PathBuf>) -> DaemonBuilder {
        let program = instead_of(program.into());
        DaemonBuilder {
            command: Command::new(&program),
            program,
            inherited: Vec::new(),
            bound: false,
            clocks_ahead: 0,
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves: a daemon in a sandbox leaves the process that was started outside,
    /// to wait for the one inside.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn serving_pid(&self) -> std::io::Result<u32> {
        Ok(group::child_of(self.pid())?.unwrap_or_else(|| self.pid()))
    }

    /// CPU time of all its threads so far, in hundredths of a second (proc(5), `utime` and `stime`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_ticks(&self) -> std::io::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.serving_pid()?))?;
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks = fields.skip(11).take(2).map(|field| field.parse::<u64>());
        ticks.sum::<Result<u64, _>>().map_err(std::io::Error::other)
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
        // Children that the daemon forked for its sandbox, or UML for its guest's processes, are
        // in its group.
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::KILL);
        self.child
            .wait()
            .map_err(|source| self.os("wait for its end", source))?;
        let deadline = Instant::now() + GROUP_END;
        while group_is_alive(self.pid()) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        Ok(())
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
        if thread::panicking() {
            // cargo shows this with the failed test only.
            eprintln!("--- {} said ---\n{}", self.name, self.stderr.finish());
        }
    }
}

/// The program that the user of the tests wants in the place of `program`.
fn instead_of(program: PathBuf) -> PathBuf {
    let folder = std::env::var_os("RINGSIDE_PROGRAMS").map(PathBuf::from);
    let name = program.file_name();
    let other = folder.zip(name).map(|(folder, name)| folder.join(name));
    other.filter(|path| path.is_file()).unwrap_or(program)
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

//! System calls of a daemon while a load runs, by perf where the kernel lets it, else by strace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::process::{Daemon, Error as ProcessError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode as FileMode, mknodat};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::Processes;

const SOON: Duration = Duration::from_secs(10);
/// How long strace needs to attach to a daemon's threads.
const ATTACH: Duration = Duration::from_millis(500);
const EVENT: &str = "raw_syscalls:sys_enter";

/// How system calls are counted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// `perf stat` on the kernel's tracepoint: hardly slows the daemon.
    Perf,
    /// `strace -c -f`: slows it much, so that batches grow and the count per request shrinks.
    Strace,
}

/// Counts a daemon's system calls.
#[derive(Clone, Debug)]
pub struct Counter {
    method: Method,
    scratch: PathBuf,
}

/// A count failed.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The tool cannot be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of the tool's.
    #[error("cannot talk to the counting tool")]
    Io(#[from] io::Error),
    /// The tool does not answer.
    #[error("the counting tool does not answer")]
    Silent,
    /// The tool's output.
    #[error("the counting tool gave no count; it said: {0}")]
    NoCount(String),
}

impl Counter {
    /// Finds a way to count; `scratch` is a directory for its files.
    #[must_use]
    pub fn probe(scratch: &Path) -> Option<Self> {
        let works = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let method = if works("perf", &["stat", "-e", EVENT, "--", "true"]) {
            Method::Perf
        } else if works("strace", &["-c", "-f", "true"]) {
            Method::Strace
        } else {
            return None;
        };
        let scratch = scratch.to_owned();
        Some(Self { method, scratch })
    }

    /// How it counts.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Counts the system calls of `processes` while `load` runs.
    ///
    /// # Errors
    /// When the tool fails or `load` does.
    pub fn count<T, E: From<CountError>>(
        &self,
        processes: &Processes,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<(u64, T), E> {
        let pids: Vec<String> = processes.pids().iter().map(u32::to_string).collect();
        let output = self.scratch.join("system-calls");
        let mut tool = match self.method {
            Method::Perf => Tool::perf(&pids, &output, &self.scratch)?,
            Method::Strace => Tool::strace(&pids, &output)?,
        };
        let result = load()?;
        let count = tool.finish(&output).map_err(E::from)?;
        Ok((count, result))
    }
}

/// A tool that counts now.
struct Tool {
    process: Daemon,
    control: Option<Control>,
    parse: fn(&str) -> Option<u64>,
}

impl Tool {
    fn perf(pids: &[String], output: &Path, scratch: &Path) -> Result<Self, CountError> {
        let (control, option) = Control::new(scratch)?;
        let process = Daemon::builder("perf")
            .args([
                "stat",
                "-x,",
                "-e",
                EVENT,
                "-D",
                "-1",
                "-p",
                &pids.join(","),
            ])
            .arg("--control")
            .arg(option)
            .arg("-o")
            .arg(output)
            .spawn()?;
        let mut tool = Self {
            process,
            control: Some(control),
            parse: parse_perf,
        };
        tool.tell("enable\n")?;
        Ok(tool)
    }

    fn strace(pids: &[String], output: &Path) -> Result<Self, CountError> {
        let attach = pids.iter().flat_map(|pid| ["-p", pid]);
        let builder = Daemon::builder("strace").args(["-c", "-f"]).args(attach);
        let process = builder.arg("-o").arg(output).spawn()?;
        std::thread::sleep(ATTACH);
        Ok(Self {
            process,
            control: None,
            parse: parse_strace,
        })
    }

    fn tell(&mut self, word: &str) -> Result<(), CountError> {
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        let told = control.tell(word, &mut self.process);
        told.map_err(|error| match error {
            CountError::Silent => CountError::NoCount(self.process.stderr()),
            other => other,
        })
    }

    fn finish(&mut self, output: &Path) -> Result<u64, CountError> {
        self.tell("disable\n")?;
        self.process.signal(Signal::INT)?;
        let exit = self.process.wait_exit(SOON)?;
        let text = fs::read_to_string(output)?;
        (self.parse)(&text).ok_or_else(|| CountError::NoCount(text + &exit.stderr))
    }
}

/// perf's control and acknowledge pipes.
struct Control {
    words: File,
    answers: File,
}

impl Control {
    /// Makes the pipes, and perf's option that names them.
    fn new(scratch: &Path) -> Result<(Self, String), CountError> {
        let open = |name: &str| -> io::Result<(File, PathBuf)> {
            let path = scratch.join(name);
            let _ = fs::remove_file(&path);
            mknodat(
                CWD,
                &path,
                FileType::Fifo,
                FileMode::RUSR | FileMode::WUSR,
                0,
            )?;
            // Opened for both directions: waits for no partner, and sees no end of file.
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            Ok((file, path))
        };
        let (words, control) = open("perf-control")?;
        let (answers, answer) = open("perf-answer")?;
        let option = format!("fifo:{},{}", control.display(), answer.display());
        Ok((Self { words, answers }, option))
    }

    fn tell(&mut self, word: &str, perf: &mut Daemon) -> Result<(), CountError> {
        self.words.write_all(word.as_bytes())?;
        let deadline = Instant::now() + SOON;
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        while Instant::now() < deadline && perf.is_running() {
            let mut waited = [PollFd::new(&self.answers, PollFlags::IN)];
            match poll(&mut waited, Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    let mut answer = [0; 64];
                    let _ = self.answers.read(&mut answer)?;
                    return Ok(());
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Err(CountError::Silent)
    }
}

/// `perf stat -x,`: the count is the first field of the event's line.
fn parse_perf(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok()
}

/// `strace -c`: the calls are the fourth column of the line of totals.
fn parse_strace(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .rfind(|line| line.trim_end().ends_with(" total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_the_tools_output() {
        let perf = "# started on Sat\n\n29,,raw_syscalls:sys_enter,1234,100.00,,\n";
        assert_eq!(parse_perf(perf), Some(29));
        assert_eq!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0"), None);
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.000100           2        50         1 read\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.000100           2        50         1 total\n";
        assert_eq!(parse_strace(strace), Some(50));
    }

    /// Counts a shell that opens a file again and again.
    fn count_busy_shell(method: Option<Method>) -> u64 {
        let scratch = tempfile::tempdir().unwrap();
        let mut counter = Counter::probe(scratch.path()).expect("perf or strace is installed");
        counter.method = method.unwrap_or(counter.method);
        let script = "while :; do : </dev/null; done";
        let mut busy = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let count = counter.count(&Processes::of(busy.id()), || {
            std::thread::sleep(Duration::from_millis(100));
            Ok::<_, CountError>(())
        });
        busy.kill().unwrap();
        busy.wait().unwrap();
        count.unwrap().0
    }

    #[test]
    fn the_tool_at_hand_counts() {
        assert!(count_busy_shell(None) > 100);
    }

    #[test]
    fn strace_counts_where_perf_may_not() {
        lab::need::program("strace").unwrap();
        assert!(count_busy_shell(Some(Method::Strace)) > 100);
    }
}

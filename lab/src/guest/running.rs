//! A guest while it runs, whatever runs it.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::error::evidence;
use crate::process::{Daemon, Transcript};
use crate::scratch::Scratch;

/// Comes before the script's exit code, at the end of its output.
pub(super) const EXIT_MARK: &str = "\u{1}lab-exit:";
const POLL: Duration = Duration::from_millis(10);
/// How long a guest that has finished may take to power off.
const POWER_OFF: Duration = Duration::from_secs(5);

/// What a guest's script did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The script's exit code.
    pub code: i32,
    /// What it wrote to standard output and standard error.
    pub output: String,
    /// What the kernel and the hypervisor said.
    pub console: String,
}

impl Outcome {
    /// The output of a script that must have ended with exit code zero.
    ///
    /// # Errors
    /// When it ended with another one; the error shows the ends of output and console.
    pub fn success(self) -> Result<String, Error> {
        match self.code {
            0 => Ok(self.output),
            code => Err(Error::Failed {
                code,
                evidence: evidence(&self.output, &self.console),
            }),
        }
    }
}

/// The two ends of the stream that the script reads and writes.
pub(super) struct Port {
    near: UnixStream,
    far: OwnedFd,
}

impl Port {
    pub(super) fn new() -> Result<Self, Error> {
        let pair = UnixStream::pair().map_err(Error::io("make a socket pair for the guest"))?;
        Ok(Self {
            near: pair.0,
            far: pair.1.into(),
        })
    }

    /// The number of the far end, for the hypervisor's command line.
    pub(super) fn number(&self) -> RawFd {
        self.far.as_raw_fd()
    }

    pub(super) fn split(self) -> (UnixStream, OwnedFd) {
        (self.near, self.far)
    }
}

/// A guest that runs. Dropping it kills the hypervisor and its children.
#[derive(Debug)]
pub struct Guest {
    name: &'static str,
    hypervisor: Daemon,
    port: UnixStream,
    output: Transcript,
    deadline: Instant,
    limit: Duration,
    _scratch: Scratch,
}

impl Guest {
    pub(super) fn watch(
        name: &'static str,
        hypervisor: Daemon,
        port: UnixStream,
        limit: Duration,
        scratch: Scratch,
    ) -> Result<Self, Error> {
        let reader = port
            .try_clone()
            .map_err(Error::io("duplicate the guest's socket"))?;
        Ok(Self {
            name,
            hypervisor,
            port,
            output: Transcript::of(Some(reader)),
            deadline: Instant::now() + limit,
            limit,
            _scratch: scratch,
        })
    }

    /// What the script said so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// What the kernel and the hypervisor said so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.hypervisor.stdout() + &self.hypervisor.stderr()
    }

    /// The hypervisor's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.hypervisor.pid()
    }

    /// Waits until the script's output contains `text`.
    ///
    /// # Errors
    /// When the guest ends, or does not say it before its time limit.
    pub fn wait_output(&mut self, text: &str) -> Result<(), Error> {
        let awaited = format!("saying `{text}`");
        self.wait_until(&awaited, |output| output.contains(text).then_some(()))
    }

    /// Writes to the script's standard input.
    ///
    /// # Errors
    /// When the guest has ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.port
            .write_all(bytes)
            .map_err(Error::io("write to the guest's script"))
    }

    /// Waits for the script's end.
    ///
    /// # Errors
    /// When the guest ends before its script does, or the time limit passes.
    pub fn wait(mut self) -> Result<Outcome, Error> {
        let (code, output) = self.wait_until("done with its script", exit_code)?;
        // Data that the guest still holds is flushed while it powers off.
        let _ = self.hypervisor.wait_exit(POWER_OFF);
        Ok(Outcome {
            code,
            output,
            console: self.console(),
        })
    }

    fn wait_until<T>(
        &mut self,
        awaited: &str,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            // Seen before the output is read, so that a last word is not missed.
            let ended = !self.hypervisor.is_running();
            let output = if ended {
                self.output.finish()
            } else {
                self.output.text()
            };
            if let Some(value) = found(&output) {
                return Ok(value);
            }
            let (guest, awaited) = (self.name, awaited.to_owned());
            if ended {
                let evidence = evidence(&output, &self.console());
                return Err(Error::Died {
                    guest,
                    awaited,
                    evidence,
                });
            }
            if Instant::now() >= self.deadline {
                let evidence = evidence(&output, &self.console());
                return Err(Error::TimedOut {
                    guest,
                    awaited,
                    limit: self.limit,
                    evidence,
                });
            }
            thread::sleep(POLL);
        }
    }
}

/// The exit code that ends the output, and the output before it.
fn exit_code(output: &str) -> Option<(i32, String)> {
    let (before, after) = output.rsplit_once(EXIT_MARK)?;
    let code = after.split_once('\n')?.0.trim();
    Some((code.parse().ok()?, before.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_comes_after_the_mark_and_in_full() {
        assert_eq!(
            exit_code("hello\n\u{1}lab-exit:12\n"),
            Some((12, "hello\n".into()))
        );
        assert_eq!(exit_code("hello\n\u{1}lab-exit:1"), None);
        assert_eq!(exit_code("hello\n"), None);
    }
}

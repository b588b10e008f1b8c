//! The command on the host itself, where its KVM is native.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Instant;

use ringside::kvm;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Error, Machine};
use crate::sys::spawn;

const POLL: std::time::Duration = std::time::Duration::from_millis(10);

impl Machine {
    /// Runs the command on the host with this process's own streams, for hosts whose KVM runs
    /// ring-0 code at the processor's speed. Returns its exit code. Memory, processors and
    /// directories are the host's.
    ///
    /// # Errors
    /// When the host's KVM is missing or slow, the command cannot be run, or the time limit passes.
    pub fn run_here(&self) -> Result<u8, Error> {
        match kvm::probe() {
            Ok(speed) if speed.is_native() => {}
            Ok(speed) => {
                let rate = speed.instructions_per_second / 1000;
                return Err(Error::NoKvmHere(format!(
                    "/dev/kvm runs only {rate} thousand ring-0 instructions a second: it interprets them"
                )));
            }
            Err(error) => return Err(Error::NoKvmHere(error.to_string())),
        }
        let child = self.spawn_here()?;
        self.wait_here(child)
    }

    fn spawn_here(&self) -> Result<Child, Error> {
        let (program, arguments) = self.command.split_first().ok_or(Error::NoCommand)?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder);
        command.env_clear().envs(self.environment.iter().cloned());
        command.process_group(0);
        spawn::bind(&mut command);
        command.spawn().map_err(|source| Error::NotRun {
            message: format!("cannot run {}: {source}", program.display()),
            code: match source.kind() {
                std::io::ErrorKind::NotFound => 127,
                _ => 126,
            },
            evidence: String::new(),
        })
    }

    fn wait_here(&self, mut child: Child) -> Result<u8, Error> {
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some(status) = child
                .try_wait()
                .map_err(Error::io("wait for the command"))?
            {
                return Ok(exit_code(status));
            }
            if Instant::now() >= deadline {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Err(Error::TooSlowHere(self.limit));
            }
            thread::sleep(POLL);
        }
    }
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

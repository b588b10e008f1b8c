//! The machine's command: started, signalled, waited for.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use lab_protocol::{Notice, Order, Process, port};
use ringside_agent::shutdown;
use rustix::process::{Pid, WaitOptions, wait};

use crate::relay::{Input, copy_output};
use crate::{ports, sys};

/// The command's configuration and the ports its streams go through.
pub(crate) struct Command<'a> {
    config: &'a Process,
    stdin: File,
    stdout: File,
    stderr: File,
}

/// The command did not start.
pub(crate) struct StartError {
    program: String,
    source: io::Error,
}

impl StartError {
    /// Says so with the exit code a shell would give.
    pub(crate) fn into_notice(self) -> Notice {
        let Self { program, source } = self;
        let code = if source.kind() == io::ErrorKind::NotFound {
            127
        } else {
            126
        };
        let message = format!("cannot run {program} in the lab: {source}");
        Notice::Failed { message, code }
    }
}

impl<'a> Command<'a> {
    pub(crate) fn open(config: &'a Process) -> Result<Self> {
        let cwd = config.cwd.as_os_str();
        let is_directory = fs::metadata(cwd).is_ok_and(|metadata| metadata.is_dir());
        anyhow::ensure!(
            is_directory,
            "the machine has no working directory {}",
            cwd.display()
        );
        let stdin = ports::open(port::STDIN)?;
        let stdout = ports::open(port::STDOUT)?;
        Ok(Self {
            config,
            stdin,
            stdout,
            stderr: ports::open(port::STDERR)?,
        })
    }

    pub(crate) fn start(&self) -> Result<Running, StartError> {
        let program = self
            .config
            .args
            .first()
            .map(|arg| arg.as_os_str().to_owned());
        let program = program.unwrap_or_default();
        let mut command = std::process::Command::new(&program);
        command.args(self.config.args.iter().skip(1).map(|arg| arg.as_os_str()));
        command.env_clear();
        command.envs(
            self.config
                .env
                .iter()
                .map(|(name, value)| (name.as_os_str(), value.as_os_str())),
        );
        command.current_dir(self.config.cwd.as_os_str());
        self.start_on_pipes(command).map_err(|source| StartError {
            program: program.display().to_string(),
            source,
        })
    }

    fn start_on_pipes(&self, mut command: std::process::Command) -> io::Result<Running> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        sys::in_new_session(&mut command);
        let mut child = command.spawn()?;
        let pid = child_pid(&child)?;
        let missing = || io::Error::other("a standard stream of the command is missing");
        let stdin = OwnedFd::from(child.stdin.take().ok_or_else(missing)?);
        let stdout = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
        let stderr = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
        let input = Arc::new(Input::new()?);
        input.feed(self.stdin.try_clone()?, stdin.into());
        Ok(Running {
            pid,
            input,
            stdout: copy_output(stdout.into(), self.stdout.try_clone()?),
            stderr: copy_output(stderr.into(), self.stderr.try_clone()?),
        })
    }
}

fn child_pid(child: &std::process::Child) -> io::Result<Pid> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the command has no process id"))
}

/// The command while it runs.
pub(crate) struct Running {
    pid: Pid,
    input: Arc<Input>,
    stdout: JoinHandle<u64>,
    stderr: JoinHandle<u64>,
}

/// What the host's orders act on.
pub(crate) struct Target {
    pid: Pid,
    input: Arc<Input>,
}

impl Running {
    pub(crate) fn target(&self) -> Target {
        Target {
            pid: self.pid,
            input: Arc::clone(&self.input),
        }
    }

    /// Reaps every orphan until the command itself ends; returns its exit code as a shell would.
    pub(crate) fn wait(&self) -> Result<u8> {
        loop {
            let (pid, status) = match wait(WaitOptions::empty()) {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).context("cannot wait for the command"),
            };
            if pid != self.pid {
                continue;
            }
            let signalled = status.terminating_signal().map(|signal| 128 + signal);
            let code = status.exit_status().or(signalled).unwrap_or(255);
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
    }

    /// Ends whatever the command left running, then waits until all output is on its way to the
    /// host. Returns the bytes of standard output and standard error.
    pub(crate) fn drain(self) -> (u64, u64) {
        shutdown::end_processes();
        while wait(WaitOptions::empty()).is_ok() {}
        let bytes = |thread: JoinHandle<u64>| thread.join().unwrap_or_default();
        (bytes(self.stdout), bytes(self.stderr))
    }
}

impl Target {
    pub(crate) fn obey(&self, order: Order) {
        let done = match order {
            Order::Signal { number } => sys::signal(self.pid, number),
            Order::StdinEnd { bytes } => self.input.end_after(bytes),
            Order::PowerOff => Ok(()),
        };
        if let Err(error) = done {
            eprintln!("ringside-lab-init: {order:?}: {error}");
        }
    }
}

//! What is done to containers and processes that are there.

use std::ffi::OsStr;
use std::fs;

use anyhow::Context;
use ringside_protocol::agent::{ResizeRequest, SignalRequest, StatsResponse, UpdateRequest};
use rustix::process::Pid;
use rustix::termios::tcsetwinsize;

use super::children::ProcessName;
use super::containers::State;
use super::error::{Error, Result};
use super::helper::{self, Job, Stdio3};
use super::lifecycle::process_name;
use super::{Pod, cgroup, layout, stdio};
use crate::sys;

/// The highest signal number, signal(7).
const LAST_SIGNAL: u32 = 64;

impl Pod {
    pub(super) fn signal(&self, request: &SignalRequest) -> Result<()> {
        let signal = i32::try_from(request.signal).unwrap_or_default();
        if !(1..=LAST_SIGNAL).contains(&request.signal) {
            return Err(Error::invalid(
                "signal",
                format!("{} is not 1 to {LAST_SIGNAL}", request.signal),
            ));
        }
        if request.all {
            return self.signal_all(&request.container, signal);
        }
        let name = process_name(&request.container, &request.exec);
        let (pid, has_ended) = {
            let mut containers = self.containers();
            let process = containers.process(&name)?;
            (process.pid, process.ended)
        };
        let sent = pid.and_then(|pid| {
            self.children
                .while_there(pid, |pid| sys::signal(pid, signal))
        });
        // One with an id that is not there was collected just now.
        let has_ended = has_ended || pid.is_some();
        let sent = sent.ok_or_else(|| match has_ended {
            true => Error::Ended(describe(&name)),
            false => Error::State(format!("{} has not begun", describe(&name))),
        })?;
        sent.with_context(|| format!("cannot send signal {signal}"))?;
        Ok(())
    }

    fn signal_all(&self, container: &str, signal: i32) -> Result<()> {
        self.containers().container(container)?;
        if signal == libc::SIGKILL {
            cgroup::kill(container);
            return Ok(());
        }
        for pid in cgroup::processes(container)? {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // One that ended since is not to be signalled any more.
            let _ = pid.map(|pid| sys::signal(pid, signal));
        }
        Ok(())
    }

    pub(super) fn resize(&self, request: &ResizeRequest) -> Result<()> {
        let size = stdio::size(&request.window)?;
        let name = process_name(&request.container, &request.exec);
        let mut containers = self.containers();
        let process = containers.process(&name)?;
        let terminal = process
            .terminal
            .as_ref()
            .ok_or_else(|| Error::State(format!("{} has no terminal", describe(&name))))?;
        tcsetwinsize(terminal, size).context("cannot resize the terminal")?;
        Ok(())
    }

    pub(super) fn close_stdin(&self, name: &ProcessName) -> Result<()> {
        let input = self.containers().process(name)?.input;
        if let Some(input) = input {
            self.mover.end_soon(input);
        }
        Ok(())
    }

    pub(super) fn freeze(&self, container: &str, frozen: bool) -> Result<()> {
        let state = self.containers().container(container)?.state;
        if state != State::Running {
            return Err(Error::State(format!(
                "container {container:?} does not run: it must for this"
            )));
        }
        cgroup::freeze(container, frozen)
    }

    pub(super) fn pids(&self, container: &str) -> Result<Vec<u32>> {
        self.containers().container(container)?;
        cgroup::processes(container)
    }

    pub(super) fn stats(&self, container: &str) -> Result<StatsResponse> {
        self.containers().container(container)?;
        cgroup::stats(container)
    }

    /// Changes limits; what the request leaves out stays.
    pub(super) fn update(&self, request: &UpdateRequest) -> Result<()> {
        let name = &request.container;
        self.containers().container(name)?;
        let file = layout::bundle(name).join("resources.json");
        fs::write(&file, &request.resources).context("cannot write the resources")?;
        let arguments = [OsStr::new(name), file.as_os_str()];
        let updated = helper::have_done(
            &self.children,
            Job::Update,
            &arguments,
            Stdio3::null(),
            |_| {},
        );
        let _ = fs::remove_file(&file);
        match updated {
            Ok(_) => Ok(()),
            Err(Error::Invalid { why, .. }) => Err(Error::invalid("resources", why)),
            Err(error) => Err(error),
        }
    }
}

fn describe(name: &ProcessName) -> String {
    let ProcessName { container, exec } = name;
    if exec.is_empty() {
        format!("container {container:?}'s first process")
    } else {
        format!("process {exec:?} of container {container:?}")
    }
}

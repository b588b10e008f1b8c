//! Containers and processes come and go.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringside_protocol::agent::{BlockVolume, CreateContainerRequest, ExecRequest, Exit};
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use super::children::{self, ProcessName};
use super::containers::State;
use super::error::{Error, Result};
use super::helper::{self, Job, Stdio3};
use super::spec::{self, Glance, ProcessGlance};
use super::stdio::{self, Prepared};
use super::{Pod, cgroup, device_rules, devices, layout, storage};
use crate::{shutdown, sys};

/// How long what was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

impl Pod {
    /// Mounts, makes the container's process, and leaves it waiting to be started.
    pub(super) fn create(&self, request: &CreateContainerRequest) -> Result<u32> {
        let name = &request.container;
        self.containers().reserve(name)?;
        let made = self.create_reserved(request);
        if made.is_err() {
            self.forget(name);
        }
        sys::heap::trim();
        made
    }

    fn create_reserved(&self, request: &CreateContainerRequest) -> Result<u32> {
        let name = &request.container;
        let glance = self.write_spec(name, &request.spec, &request.volumes)?;
        for storage in &request.storages {
            if storage.of_pod {
                storage::mount_for_pod(storage)?;
                continue;
            }
            let point = storage::mount_storage(storage)?;
            self.containers().container(name)?.mounts.push(point);
        }
        let process = ProcessName {
            container: name.clone(),
            exec: String::new(),
        };
        let arguments = [OsStr::new(name)];
        let pid = self.start_process(
            &process,
            Job::Create,
            &arguments,
            &glance.process,
            (&request.streams, &request.window),
        )?;
        self.watcher.watch(name);
        self.containers()
            .turn(name, &[State::Creating], State::Created, "be made")?;
        Ok(pid)
    }

    /// Puts the container's config.json where libcontainer looks for it.
    fn write_spec(&self, name: &str, bytes: &[u8], volumes: &[BlockVolume]) -> Result<Glance> {
        let (glance, mut spec) = spec::read(bytes)?;
        spec::adapt(&mut spec, name, &self.share());
        for volume in volumes {
            devices::set_numbers(
                &mut spec,
                &volume.path,
                storage::disk_numbers(&volume.serial)?,
            );
        }
        device_rules::apply(name, &spec)?;
        let bundle = layout::bundle(name);
        fs::create_dir(&bundle).context("cannot make the container's directory")?;
        fs::write(bundle.join("config.json"), spec.to_string())
            .context("cannot write the container's config.json")?;
        Ok(glance)
    }

    /// What creating and exec have in common. The name is reserved.
    fn start_process(
        &self,
        name: &ProcessName,
        job: Job,
        arguments: &[&OsStr],
        glance: &ProcessGlance,
        (streams, window): (
            &ringside_protocol::agent::Streams,
            &ringside_protocol::agent::WindowSize,
        ),
    ) -> Result<u32> {
        let (prepared, theirs) = stdio::prepare(&self.mover, glance, streams, window)?;
        let console = prepared.console();
        let arguments: Vec<_> = arguments
            .iter()
            .copied()
            .chain([console.as_os_str()])
            .collect();
        let mut claimed = Ok(());
        let pid = helper::have_done(&self.children, job, &arguments, theirs, |pid| {
            claimed = self.claim(name, prepared, pid);
        })?;
        claimed?;
        Ok(pid)
    }

    /// Makes a process that a helper has just started known, with its streams; or ends it: nobody would ever hear of it.
    /// The helper is there still and holds its id.
    fn claim(&self, name: &ProcessName, prepared: Prepared, pid: u32) -> Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let claimed = prepared.connect(&self.mover).and_then(|mut process| {
            process.pid = pid;
            self.containers()
                .settle(name, process)
                .map_err(|(error, process)| {
                    self.mover.stop(process.copies());
                    error
                })
        });
        match (&claimed, pid) {
            (Ok(()), Some(pid)) => self.children.expect(pid, name.clone()),
            (Err(_), Some(pid)) => {
                let _ = kill_process(pid, Signal::KILL);
            }
            (_, None) => {}
        }
        claimed
    }

    pub(super) fn start(&self, name: &str) -> Result<()> {
        // Its process may end before the helper says that it runs, so the container counts as running at once.
        self.containers().turn(
            name,
            &[State::Created],
            State::Running,
            "wait to be started",
        )?;
        let arguments = [OsStr::new(name)];
        let started = helper::have_done(
            &self.children,
            Job::Start,
            &arguments,
            Stdio3::null(),
            |_| {},
        );
        if let Err(error) = started {
            let mut containers = self.containers();
            if let Ok(container) = containers.container(name)
                && container.state == State::Running
            {
                container.state = State::Created;
            }
            return Err(error);
        }
        Ok(())
    }

    /// Starts a further process.
    pub(super) fn exec(&self, request: &ExecRequest) -> Result<u32> {
        let name = ProcessName {
            container: request.container.clone(),
            exec: request.exec.clone(),
        };
        let glance: ProcessGlance = serde_json::from_slice(&request.process)
            .map_err(|error| Error::invalid("process", error))?;
        if cgroup::is_frozen(&name.container) {
            let why = format!("container {:?} is paused", name.container);
            return Err(Error::State(why));
        }
        self.containers()
            .reserve_process(&name.container, &name.exec)?;
        let file = layout::bundle(&name.container).join(format!("exec-{}", name.exec));
        let started = fs::write(&file, &request.process)
            .context("cannot write the process's description")
            .map_err(Error::from)
            .and_then(|()| {
                let arguments = [OsStr::new(&name.container), file.as_os_str()];
                let ends = (&*request.streams, &*request.window);
                self.start_process(&name, Job::Exec, &arguments, &glance, ends)
            });
        let _ = fs::remove_file(&file);
        if started.is_err() {
            self.forget_process(&name);
        }
        started
    }

    /// A process of a container's has ended; it is collected already.
    pub(super) fn ended(&self, name: &ProcessName, status: WaitStatus) {
        let mut exit = Exit::new();
        exit.container.clone_from(&name.container);
        exit.exec.clone_from(&name.exec);
        exit.code = children::code(status);
        exit.at_ns = sys::clock::realtime_ns();
        self.watcher.look(&name.container);
        let mut containers = self.containers();
        let mut outputs = Vec::new();
        if let Ok(process) = containers.process(name) {
            process.pid = None;
            process.ended = true;
            outputs.clone_from(&process.outputs);
            self.mover.stop(process.input.take().into_iter().collect());
        }
        if name.exec.is_empty()
            && let Ok(container) = containers.container(&name.container)
            && container.state != State::Deleting
        {
            container.state = State::Ended;
        }
        drop(containers);
        self.mover.ended(outputs, exit);
    }

    /// Takes a container away that has ended, or was never started.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let from = [State::Created, State::Ended];
        let was = self
            .containers()
            .turn(name, &from, State::Deleting, "have ended")?;
        let deleted = self.delete_turned(name);
        match &deleted {
            Ok(()) => self.forget(name),
            Err(_) => {
                let _ = self
                    .containers()
                    .turn(name, &[State::Deleting], was, "be there");
            }
        }
        deleted
    }

    fn delete_turned(&self, name: &str) -> Result<()> {
        cgroup::kill(name);
        let deadline = Instant::now() + KILLED;
        while self.containers().container(name)?.has_running() || !cgroup::is_empty(name) {
            if Instant::now() > deadline {
                let why =
                    format!("processes of container {name:?} do not end, though they were killed");
                return Err(Error::State(why));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // libcontainer removes the container's own cgroup only, which the kernel refuses while others are in it.
        cgroup::remove_inner(name).context("cannot remove the cgroups that the container made")?;
        let arguments = [OsStr::new(name)];
        helper::have_done(
            &self.children,
            Job::Delete,
            &arguments,
            Stdio3::null(),
            |_| {},
        )?;
        Ok(())
    }

    /// Lets go of everything a container has or had, as far as it got.
    fn forget(&self, name: &str) {
        self.watcher.forget(name);
        let Some(container) = self.containers().remove(name) else {
            return;
        };
        for point in container.mounts.iter().rev() {
            storage::unmount(point);
        }
        for process in container.into_processes() {
            self.mover.stop(process.copies());
        }
        cgroup::kill(name);
        let _ = fs::remove_dir_all(layout::bundle(name));
        // libcontainer's, where nobody has it delete the container.
        let _ = fs::remove_dir_all(layout::state(name));
        // It is there still if the container was never made.
        if let Err(error) = cgroup::remove(name) {
            eprintln!("ringside-agent: cannot remove the cgroup of container {name:?}: {error}");
        }
    }

    /// Forgets an ended process. The init process's goes with its container.
    pub(super) fn delete_process(&self, name: &ProcessName) -> Result<()> {
        let mut containers = self.containers();
        let process = containers.process(name)?;
        if !process.ended {
            let why = format!(
                "process {:?} of container {:?} runs: it must have ended for this",
                name.exec, name.container
            );
            return Err(Error::State(why));
        }
        drop(containers);
        if !name.exec.is_empty() {
            self.forget_process(name);
        }
        Ok(())
    }

    fn forget_process(&self, name: &ProcessName) {
        let process = self.containers().remove_process(name);
        if let Some(process) = process {
            self.mover.stop(process.copies());
        }
    }

    /// Everything ends, and the machine with it.
    pub(super) fn end(&self) -> ! {
        cgroup::kill_all();
        shutdown::end_processes();
        shutdown::write_back();
        shutdown::power_off();
        // Switched off: the answer to this order never leaves.
        loop {
            std::thread::park();
        }
    }
}

/// The init process's name.
pub(super) fn process_name(container: &str, exec: &str) -> ProcessName {
    ProcessName {
        container: container.to_owned(),
        exec: exec.to_owned(),
    }
}

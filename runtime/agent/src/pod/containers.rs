//! The containers that are there, and their processes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use super::children::ProcessName;
use super::error::{Error, Result};
use super::mover::CopyId;

/// Longest name of a container or process, in bytes: it becomes a file's name.
const LONGEST_NAME: usize = 200;

/// Where a container's init process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A helper works on it.
    Creating,
    /// It waits to be started.
    Created,
    Running,
    Ended,
    /// A helper takes it away.
    Deleting,
}

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) state: State,
    /// By name; the init process's is empty.
    processes: BTreeMap<String, Process>,
    /// Where its storages are mounted, in this order.
    pub(super) mounts: Vec<String>,
}

/// One process, from the moment it is asked for until the host deletes it.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// There while the process is.
    pub(super) pid: Option<Pid>,
    pub(super) input: Option<CopyId>,
    pub(super) outputs: Vec<CopyId>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) ended: bool,
}

impl Process {
    pub(super) fn copies(&self) -> Vec<CopyId> {
        self.outputs.iter().copied().chain(self.input).collect()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Containers {
    all: BTreeMap<String, Container>,
}

impl Containers {
    /// Takes a name for a container that is about to be made.
    pub(super) fn reserve(&mut self, name: &str) -> Result<()> {
        check_name("container", name)?;
        match self.all.entry(name.to_owned()) {
            Entry::Occupied(_) => Err(Error::Exists(format!("container {name:?}"))),
            Entry::Vacant(entry) => {
                entry.insert(Container {
                    state: State::Creating,
                    processes: BTreeMap::from([(String::new(), Process::default())]),
                    mounts: Vec::new(),
                });
                Ok(())
            }
        }
    }

    /// Takes a name for a further process of a running container.
    pub(super) fn reserve_process(&mut self, container: &str, exec: &str) -> Result<()> {
        check_name("exec", exec)?;
        let there = self.container(container)?;
        if there.state != State::Running {
            return Err(not_so(container, there.state, "run"));
        }
        match there.processes.entry(exec.to_owned()) {
            Entry::Occupied(_) => Err(Error::Exists(format!(
                "process {exec:?} of container {container:?}"
            ))),
            Entry::Vacant(entry) => {
                entry.insert(Process::default());
                Ok(())
            }
        }
    }

    pub(super) fn container(&mut self, name: &str) -> Result<&mut Container> {
        self.all
            .get_mut(name)
            .ok_or_else(|| Error::NoContainer(name.to_owned()))
    }

    pub(super) fn process(&mut self, name: &ProcessName) -> Result<&mut Process> {
        let container = self.container(&name.container)?;
        container
            .processes
            .get_mut(&name.exec)
            .ok_or_else(|| Error::NoProcess(name.container.clone(), name.exec.clone()))
    }

    /// Puts a process that runs where its name was reserved; gives it back where its container has gone meanwhile.
    pub(super) fn settle(
        &mut self,
        name: &ProcessName,
        process: Process,
    ) -> std::result::Result<(), (Error, Process)> {
        match self.process(name) {
            Ok(reserved) => {
                *reserved = process;
                Ok(())
            }
            Err(error) => Err((error, process)),
        }
    }

    /// Moves a container on, if it is where it must be for that.
    pub(super) fn turn(
        &mut self,
        name: &str,
        from: &[State],
        to: State,
        wanted: &str,
    ) -> Result<State> {
        let container = self.container(name)?;
        if !from.contains(&container.state) {
            return Err(not_so(name, container.state, wanted));
        }
        Ok(std::mem::replace(&mut container.state, to))
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Container> {
        self.all.remove(name)
    }

    pub(super) fn remove_process(&mut self, name: &ProcessName) -> Option<Process> {
        self.all
            .get_mut(&name.container)?
            .processes
            .remove(&name.exec)
    }
}

impl Container {
    pub(super) fn into_processes(self) -> impl Iterator<Item = Process> {
        self.processes.into_values()
    }

    /// Whether a process of it runs, as far as the host knows.
    pub(super) fn has_running(&self) -> bool {
        self.processes.values().any(|process| process.pid.is_some())
    }
}

fn not_so(container: &str, state: State, wanted: &str) -> Error {
    let is = match state {
        State::Creating => "is being created",
        State::Created => "is created and not started",
        State::Running => "runs",
        State::Ended => "has ended",
        State::Deleting => "is being deleted",
    };
    Error::State(format!(
        "container {container:?} {is}: it must {wanted} for this"
    ))
}

/// Names become files' names and parts of cgroups' paths.
pub(super) fn check_name(field: &'static str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let is_file = !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME;
    if is_file && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("{name:?} is not 1 to {LONGEST_NAME} of A-Z a-z 0-9 _ + - ."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(container: &str, exec: &str) -> ProcessName {
        ProcessName {
            container: container.to_owned(),
            exec: exec.to_owned(),
        }
    }

    #[test]
    fn names_are_checked() {
        let mut containers = Containers::default();
        for bad in ["", ".", "..", "a/b", "a b", "ž", "a\0", &"n".repeat(201)] {
            let refused = containers.reserve(bad).unwrap_err();
            assert!(
                matches!(
                    refused,
                    Error::Invalid {
                        field: "container",
                        ..
                    }
                ),
                "{bad:?}"
            );
        }
        containers.reserve(&"n".repeat(200)).unwrap();
    }

    #[test]
    fn a_name_is_taken_until_it_is_removed() {
        let mut containers = Containers::default();
        containers.reserve("a").unwrap();
        assert!(matches!(containers.reserve("a"), Err(Error::Exists(_))));
        assert!(containers.process(&name("a", "")).is_ok());
        containers.remove("a");
        assert!(matches!(
            containers.process(&name("a", "")),
            Err(Error::NoContainer(_))
        ));
        containers.reserve("a").unwrap();
    }

    #[test]
    fn further_processes_need_a_running_container() {
        let mut containers = Containers::default();
        containers.reserve("a").unwrap();
        assert!(matches!(
            containers.reserve_process("a", "x"),
            Err(Error::State(_))
        ));
        containers
            .turn("a", &[State::Creating], State::Running, "be made")
            .unwrap();
        containers.reserve_process("a", "x").unwrap();
        assert!(matches!(
            containers.reserve_process("a", "x"),
            Err(Error::Exists(_))
        ));
        assert!(matches!(
            containers.reserve_process("a", ""),
            Err(Error::Invalid { .. })
        ));
        assert!(matches!(
            containers.process(&name("a", "y")),
            Err(Error::NoProcess(..))
        ));
    }

    #[test]
    fn a_refusal_says_what_is_so_and_what_must_be() {
        let mut containers = Containers::default();
        containers.reserve("a").unwrap();
        let error = containers.turn("a", &[State::Created], State::Running, "wait to be started");
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("is being created") && text.contains("wait to be started"),
            "{text}"
        );
    }
}

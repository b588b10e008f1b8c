//! The helper process itself: one thread, libcontainer, one job.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;

use super::filtered::{self, Filtered};
use super::{JOBS, Job, Outcome};
use crate::pod::layout;
use crate::sys;

/// Runs one job: `JOB ARGUMENT...`, see [`Job`].
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let Some(mut socket) = sys::helper::socket() else {
        eprintln!("ringside-agent: `helper` is how the agent calls itself, not for use by hand");
        return ExitCode::FAILURE;
    };
    sys::helper::let_broken_pipes_kill();
    let outcome = match act(arguments) {
        Ok(pid) => Outcome::Done(pid),
        Err(error) if is_invalid(&error) => Outcome::Invalid(chain(&error)),
        Err(error) => Outcome::Failed(chain(&error)),
    };
    let code = match outcome {
        Outcome::Done(_) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    let mut line = serde_json::to_vec(&outcome).unwrap_or_default();
    line.push(b'\n');
    // An agent that is gone takes the machine along.
    let _ = socket.write_all(&line);
    let _ = socket.read(&mut [0]);
    code
}

fn act(arguments: &[String]) -> Result<u32> {
    let (name, rest) = arguments.split_first().context("no job given")?;
    let job = JOBS
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, job)| *job);
    match (job, rest) {
        (Some(Job::Create), [id, console]) => create(id, console),
        (Some(Job::Create), [id]) => create(id, ""),
        (Some(Job::Start), [id]) => start(id),
        (Some(Job::Exec), [id, process, console]) => exec(id, process.as_ref(), console),
        (Some(Job::Exec), [id, process]) => exec(id, process.as_ref(), ""),
        (Some(Job::Update), [id, resources]) => update(id, resources.as_ref()),
        (Some(Job::Delete), [id]) => delete(id),
        (Some(Job::Pod), []) => Ok(sys::pid_namespace::start_first_process()?),
        _ => bail!("unknown job {name}, or not its arguments"),
    }
}

fn builder(id: &str, console: &str) -> Result<ContainerBuilder> {
    let console = (!console.is_empty()).then(|| PathBuf::from(console));
    Ok(ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(layout::STATE)?
        .with_console_socket(console))
}

fn create(id: &str, console: &str) -> Result<u32> {
    let built = builder(id, console)?
        .validate_id()?
        .as_init(layout::bundle(id))
        .with_systemd(false)
        .with_detach(true)
        .build();
    let container = match built {
        Ok(container) => container,
        Err(error) => {
            // libcontainer leaves a directory behind where it failed early.
            let _ = fs::remove_dir_all(layout::state(id));
            return Err(error.into());
        }
    };
    let pid = container.pid().context("the container has no process")?;
    Ok(pid.as_raw().unsigned_abs())
}

fn load(id: &str) -> Result<Container> {
    Ok(Container::load(layout::state(id))?)
}

fn start(id: &str) -> Result<u32> {
    load(id)?.start()?;
    Ok(0)
}

fn exec(id: &str, process: &Path, console: &str) -> Result<u32> {
    let spec = Spec::load(layout::bundle(id).join("config.json"))?;
    let filter = filtered::of(&spec);
    filtered::change(process, |process| {
        // The library takes a present `false` for a `true` in one place.
        if process.no_new_privileges() == Some(false) {
            process.set_no_new_privileges(None);
        }
        // As for a container's first process, see `spec::adapt`.
        process.set_apparmor_profile(None);
        process.set_selinux_label(None);
        if filter.is_some() {
            filtered::allow_loading(process);
        }
    })?;
    let pid = builder(id, console)?
        .with_executor(Filtered(filter))
        .as_tenant()
        .with_detach(true)
        .with_process(Some(process))
        .build()?;
    Ok(pid.as_raw().unsigned_abs())
}

fn update(id: &str, resources: &Path) -> Result<u32> {
    let text = fs::read(resources).context("cannot read the resources")?;
    let resources: libcontainer::oci_spec::runtime::LinuxResources =
        serde_json::from_slice(&text).context("resources")?;
    let groups = create_cgroup_manager(CgroupConfig {
        cgroup_path: layout::cgroup(id).into(),
        systemd_cgroup: false,
        container_name: id.to_owned(),
    })?;
    groups.apply(&ControllerOpt {
        resources: &resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    })?;
    Ok(0)
}

fn delete(id: &str) -> Result<u32> {
    load(id)?.delete(true)?;
    Ok(0)
}

/// Whether what the host asked for is to blame, as far as libcontainer tells.
fn is_invalid(error: &anyhow::Error) -> bool {
    error.is::<serde_json::Error>()
        || matches!(
            error.downcast_ref::<LibcontainerError>(),
            Some(
                LibcontainerError::InvalidSpec(_)
                    | LibcontainerError::MissingSpec(_)
                    | LibcontainerError::InvalidID(_)
                    | LibcontainerError::Spec(_)
            )
        )
}

/// The error and its causes, each once: some of libcontainer's repeat their source.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

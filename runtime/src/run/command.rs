//! The command as the guest's agent is told it: a container with nothing of its own but its mounts.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, bail};
use ringside_pod::{Files, PodError, ROOT_TAG};
use ringside_protocol::agent::{CreateContainerRequest, Storage, Streams, WindowSize, storage};
use serde_json::{Value, json};

use super::Config;
use super::session::Failure;

/// The container's name.
pub(super) const CONTAINER: &str = "run";

/// Serial of the disk that is the root.
pub(super) const ROOT_SERIAL: &str = "root";

/// Where the agent has the root.
const ROOT: &str = "/run/ringside/root";

/// Where the agent has the nodes of the data disks.
const DISKS: &str = "/run/ringside/disks";

/// The container runtime's words for a program that is not there, and for one that may not be run
/// (libcontainer 0.7, workload/default.rs): it has no codes.
const NOT_FOUND: &str = "not found in $PATH";
const NOT_EXECUTABLE: &str = "does not have correct permissions";

/// A validated command.
#[derive(Debug)]
pub(super) struct Command {
    program: String,
    cwd: String,
    specification: Value,
}

pub(super) fn disk_serial(index: usize) -> String {
    format!("disk{index}")
}

/// What the agent mounts for it.
pub(super) fn storages(files: &Files, disks: usize) -> Vec<Storage> {
    let source = match files {
        Files::Nothing => storage::Source::BlockSerial(ROOT_SERIAL.to_owned()),
        Files::Bound | Files::Directory(_) => storage::Source::Virtiofs(ROOT_TAG.to_owned()),
    };
    let root = Storage {
        filesystem: match source {
            storage::Source::BlockSerial(_) => "ext4".to_owned(),
            _ => String::new(),
        },
        source: Some(source),
        mount_point: ROOT.to_owned(),
        ..Storage::default()
    };
    let nodes = (0..disks).map(disk_serial).map(|serial| Storage {
        mount_point: format!("{DISKS}/{serial}"),
        source: Some(storage::Source::BlockSerial(serial)),
        filesystem: "none".to_owned(),
        ..Storage::default()
    });
    std::iter::once(root).chain(nodes).collect()
}

impl Command {
    /// # Errors
    /// When something is no UTF-8: specifications are JSON.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let args = config.command.iter().map(|it| text("the command", it));
        let args = args.collect::<Result<Vec<_>>>()?;
        let env = config.env.iter().map(|(name, value)| {
            let (name, value) = (text("--env", name)?, text("--env", value)?);
            Ok(format!("{name}={value}"))
        });
        let env = env.collect::<Result<Vec<_>>>()?;
        let cwd = text("--cwd", config.cwd.as_os_str())?;
        let process = json!({
            "terminal": config.terminal,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": env,
            "cwd": cwd,
        });
        Ok(Self {
            program: args.first().cloned().unwrap_or_default(),
            cwd,
            specification: specification(process, config.disks.len()),
        })
    }

    pub(super) fn request(
        &self,
        streams: Streams,
        window: Option<WindowSize>,
    ) -> CreateContainerRequest {
        CreateContainerRequest {
            container: CONTAINER.to_owned(),
            spec: self.specification.to_string().into_bytes(),
            streams: Some(streams).into(),
            window: window.into(),
            ..CreateContainerRequest::default()
        }
    }

    /// Why it could not be run, with the exit code that a shell would give.
    pub(super) fn refused(&self, error: PodError) -> Failure {
        let Self { program, cwd, .. } = self;
        let PodError::Agent(_) = &error else {
            return Failure::Pod(error);
        };
        let (code, message) = match error.to_string() {
            why if why.contains(NOT_FOUND) => {
                (127, format!("cannot run {program} in the guest: not found"))
            }
            why if why.contains(NOT_EXECUTABLE) => (
                126,
                format!("cannot run {program} in the guest: it may not be executed"),
            ),
            why => (
                125,
                format!("cannot run {program} in the guest's {cwd}: {why}"),
            ),
        };
        Failure::NotRun { message, code }
    }
}

fn text(option: &str, value: &OsStr) -> Result<String> {
    match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!(
            "{option}: {} is not UTF-8, as all that a container is told must be",
            value.display()
        ),
    }
}

/// All capabilities, the guest's own name spaces but for mounts, no limits: the machine is the
/// container.
fn specification(process: Value, disks: usize) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let closed = ["nosuid", "noexec", "nodev"];
    let terminals = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &closed),
        mount("/sys", "sysfs", "sysfs", &closed),
        mount("/sys/fs/cgroup", "bind", "/sys/fs/cgroup", &["rbind"]),
        mount("/run", "tmpfs", "run", &["nosuid", "nodev", "mode=755"]),
        mount(
            "/dev",
            "tmpfs",
            "dev",
            &["nosuid", "strictatime", "mode=755"],
        ),
        mount("/dev/pts", "devpts", "devpts", &terminals),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "nodev", "mode=1777"],
        ),
    ];
    for serial in (0..disks).map(disk_serial) {
        let name = format!("/dev/disk/by-id/virtio-{serial}");
        let node = Path::new(DISKS).join(&serial);
        mounts.push(mount(&name, "bind", &node.to_string_lossy(), &["bind"]));
    }
    json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": ROOT},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": "mount"}]},
    })
}

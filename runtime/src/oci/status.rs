//! What a container is doing (runtime.md of the OCI runtime specification, "State").

use containerd_shim_protos::api;
use serde_json::{Value, json};

use super::OciError;
use super::state::{Entry, Record, StateRoot};
use super::task::Task;

/// A container's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    /// Not of the specification, but every runtime has it.
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    /// What is so now. Whose holder or shim is gone has stopped, whatever it did before.
    pub(super) fn of(root: &StateRoot, entry: &Entry, record: &Record) -> Self {
        match &record.holder {
            _ if record.exit.is_some() => Self::Stopped,
            None => Self::Creating,
            Some(holder) if !holder.lives() => Self::Stopped,
            Some(_) if !record.is_made => Self::Creating,
            Some(_) => match task(root, entry, record).and_then(|task| task.status()) {
                Ok(api::Status::CREATED) => Self::Created,
                Ok(api::Status::RUNNING) => Self::Running,
                Ok(api::Status::PAUSED | api::Status::PAUSING) => Self::Paused,
                Ok(api::Status::STOPPED | api::Status::UNKNOWN) | Err(_) => Self::Stopped,
            },
        }
    }
}

/// The task service of a container's pod.
///
/// # Errors
/// When it is gone.
pub(super) fn task(root: &StateRoot, entry: &Entry, record: &Record) -> Result<Task, OciError> {
    let pod = match &record.sandbox {
        Some(sandbox) => root.entry(sandbox)?,
        None => entry.clone(),
    };
    Task::connect(&pod.socket(), &entry.id)
}

/// The state as hooks and `ringside state` have it.
pub(super) fn state(entry: &Entry, record: &Record, status: Status) -> Value {
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": entry.id,
        "status": status.name(),
        "pid": pid(record, status),
        "bundle": record.bundle,
        "created": record.created,
        "owner": record.owner.to_string(),
    });
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    state
}

/// 0 is no process.
pub(super) fn pid(record: &Record, status: Status) -> u32 {
    match (&record.holder, status) {
        (_, Status::Stopped) | (None, _) => 0,
        (Some(holder), _) => holder.pid,
    }
}

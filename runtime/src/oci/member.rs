//! A container of a pod that began with another one: it leaves, and the pod goes on.
//!
//! Its holder is no measure of it: the container runs in the machine whether or not the process that stands for it on
//! the host is still there.

use std::time::Duration;

use super::OciError;
use super::lifecycle::SIGKILL;
use super::state::{Entry, Record, StateRoot};
use super::status;
use super::task::Task;

/// How long a killed container may take to end.
const END: Duration = Duration::from_secs(60);

/// Kills it, and waits for its end. A container that has ended, or that the shim does not know, is no error.
///
/// # Errors
/// When it does not end in time, or the shim does not answer.
pub(super) fn kill(task: &Task) -> Result<(), OciError> {
    if_there(task.kill("", SIGKILL, true))?;
    if_there(task.wait_within("", END).map(drop))
}

fn if_there(answer: Result<(), OciError>) -> Result<(), OciError> {
    match answer {
        Err(OciError::NotThere(_)) => Ok(()),
        answer => answer,
    }
}

/// Has the shim forget it, whatever it does; a shim that is gone has. Whether it had to: then it has run the hooks that
/// come last, too.
///
/// # Errors
/// When it is still there afterwards.
pub(super) fn leave(root: &StateRoot, entry: &Entry, record: &Record) -> Result<bool, OciError> {
    let Ok(task) = status::task(root, entry, record) else {
        return Ok(false);
    };
    let left = kill(&task).and_then(|()| if_there(task.delete("")));
    match left {
        Ok(()) => Ok(true),
        // It may have ended with its pod in the meantime.
        Err(_) if status::task(root, entry, record).is_err() => Ok(false),
        Err(error) => Err(error),
    }
}

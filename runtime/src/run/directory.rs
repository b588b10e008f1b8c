//! A run's own directory of sockets and logs.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Name of the file that a living run keeps locked.
const LOCK: &str = "lock";

/// What runs' directories are called: pods' and the OCI verbs' have others in the same place.
const PREFIX: &str = "run-";

/// A directory that only this user can enter, removed at the end of the run.
#[derive(Debug)]
pub(super) struct RunDirectory {
    path: TempDir,
    logs: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Makes the directory, and removes those of runs that were killed.
    pub(super) fn create(keep_logs: Option<&Path>) -> Result<Self> {
        let base = base()?;
        make_private(&base)?;
        let base_lock = File::create(base.join(LOCK))
            .with_context(|| format!("cannot write in {}", base.display()))?;
        base_lock
            .lock()
            .with_context(|| format!("cannot lock {}", base.display()))?;
        remove_abandoned(&base);
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .with_context(|| format!("cannot make a directory in {}", base.display()))?;
        let lock = File::create(path.path().join(LOCK)).context("cannot make the run's lock")?;
        lock.lock().context("cannot lock the run's directory")?;
        let logs = keep_logs.unwrap_or(path.path()).to_owned();
        fs::create_dir_all(&logs)
            .with_context(|| format!("cannot make the log directory {}", logs.display()))?;
        Ok(Self {
            path,
            logs,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.path.path()
    }

    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }
}

fn base() -> Result<PathBuf> {
    let user = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    if let Some(directory) = user {
        let base = std::path::absolute(directory).context("XDG_RUNTIME_DIR leads nowhere")?;
        return Ok(base.join("ringside"));
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "XDG_RUNTIME_DIR is not set: point it to a directory of yours, as /run/user/{}",
        rustix::process::geteuid().as_raw()
    );
    Ok("/run/ringside".into())
}

fn make_private(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
        .with_context(|| format!("cannot make the run directory {}", path.display()))
}

/// Removes runs' directories whose run does not hold its lock any more. What cannot be removed now is
/// tried again by the next run.
fn remove_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let abandoned = match File::open(path.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if abandoned && path.is_dir() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_directories_go() {
        let base = tempfile::tempdir().unwrap();
        for name in ["run-dead", "run-alive"] {
            fs::create_dir(base.path().join(name)).unwrap();
            fs::write(base.path().join(name).join(LOCK), "").unwrap();
        }
        for others in ["pods/default-c1/shared", "oci/c1"] {
            fs::create_dir_all(base.path().join(others)).unwrap();
        }
        let alive = File::open(base.path().join("run-alive").join(LOCK)).unwrap();
        alive.lock().unwrap();
        remove_abandoned(base.path());
        assert!(!base.path().join("run-dead").exists());
        for stays in ["run-alive", "pods/default-c1/shared", "oci/c1"] {
            assert!(base.path().join(stays).exists(), "{stays}");
        }
    }
}

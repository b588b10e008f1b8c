//! A run's own directory of sockets and logs.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Name of the file that a living run keeps locked.
const LOCK: &str = "lock";

/// Lines of a daemon's log that go into an error.
const LOG_LINES: usize = 15;

/// Lines of the guest's console that go into an error: a kernel panic with its registers and
/// stack fits.
const CONSOLE_LINES: usize = 50;

/// Bytes of a log that are looked at for its last lines.
const LONGEST_TAIL: u64 = 64 << 10;

/// Longest path of a unix socket (`sun_path` in unix(7)) without its final zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// The guest console's log.
const CONSOLE: &str = "console.log";

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
            .prefix("run-")
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

    /// The run's name.
    pub(super) fn id(&self) -> String {
        self.path
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(super) fn console_log(&self) -> PathBuf {
        self.logs.join(CONSOLE)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.path().join(name)
    }

    /// Path for a socket, short enough to be one.
    pub(super) fn socket(&self, name: &str) -> Result<PathBuf> {
        checked_socket_path(self.file(&format!("{name}.sock")))
    }

    /// The end of the guest's console, as a part of a message.
    pub(super) fn console_tail(&self) -> String {
        last_lines(&self.console_log(), CONSOLE_LINES, "the guest's console")
    }
}

/// Refuses a path that no unix socket can have.
pub(super) fn checked_socket_path(path: PathBuf) -> Result<PathBuf> {
    let length = path.as_os_str().len();
    ensure!(
        length <= LONGEST_SOCKET_PATH,
        "{} is {length} bytes long, a socket's path has at most {LONGEST_SOCKET_PATH}; use a shorter directory",
        path.display()
    );
    Ok(path)
}

/// The last lines of a log, introduced by what it is; says so when there is nothing.
pub(super) fn tail(path: &Path, what: &str) -> String {
    last_lines(path, LOG_LINES, what)
}

fn last_lines(path: &Path, count: usize, what: &str) -> String {
    let bytes = end_of(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return format!("\n({what} said nothing)");
    }
    let last = &lines[lines.len().saturating_sub(count)..];
    format!("\nthe last lines of {what}:\n  {}", last.join("\n  "))
}

/// A guest may print as much as it likes: only the end is read.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LONGEST_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
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

/// Removes directories whose run does not hold its lock any more. What cannot be removed now is
/// tried again by the next run.
fn remove_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
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
        for name in ["dead", "alive"] {
            fs::create_dir(base.path().join(name)).unwrap();
            fs::write(base.path().join(name).join(LOCK), "").unwrap();
        }
        let alive = File::open(base.path().join("alive").join(LOCK)).unwrap();
        alive.lock().unwrap();
        remove_abandoned(base.path());
        assert!(!base.path().join("dead").exists());
        assert!(base.path().join("alive").exists());
    }

    #[test]
    fn a_tail_is_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: Vec<_> = (0..100).map(|n| format!("line {n}")).collect();
        fs::write(file.path(), text.join("\n")).unwrap();
        let tail = tail(file.path(), "it");
        assert!(tail.contains("line 99") && tail.contains("line 85") && !tail.contains("line 84"));
        assert!(super::tail("/nowhere".as_ref(), "it").contains("it said nothing"));
    }
}

//! A pod's own directory of sockets, logs and the directory it shares with its guest.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::PodError;
use crate::identity::Identity;

/// Where pods of root have their directories.
pub const ROOT: &str = "/run/ringside/pods";

/// Another place for them; tests have others.
const ROOT_VARIABLE: &str = "RINGSIDE_PODS";

/// Longest name of a pod's directory that leaves room for its sockets' names in a socket's path.
const LONGEST_NAME: usize = 64;

/// Longest path of a unix socket (`sun_path` in unix(7)) without its final zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// Ending of directories with what daemons must not forget.
const STATE: &str = "state";

/// The file that names the process whose pod it is.
pub(crate) const OWNER: &str = "owner";

/// Where pods have their directories.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os(ROOT_VARIABLE).map_or_else(|| ROOT.into(), PathBuf::from)
}

/// The name of a pod: its engine's namespace and the first container's id, or 32 digits that stand for them. No two
/// pods have the same.
#[must_use]
pub fn pod_name(namespace: &str, sandbox: &str) -> String {
    let name = format!("{namespace}-{sandbox}");
    // Where the namespace ends must be clear: `team` and `a-web` are not `team-a` and `web`.
    let is_clear = !namespace.contains('-');
    if is_clear && name.len() <= LONGEST_NAME && is_name(&name) {
        return name;
    }
    let digest = Sha256::digest(format!("{namespace}/{sandbox}"));
    digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A directory that only this user can enter.
#[derive(Debug, Clone)]
pub struct PodDirectory {
    path: PathBuf,
    /// Where logs are kept, if not in it.
    logs: Option<PathBuf>,
}

impl PodDirectory {
    /// Makes `root/name`, mode 0700.
    ///
    /// # Errors
    /// When the pod's name is no file name, or the directory exists or cannot be made.
    pub fn create(root: &Path, name: &str) -> Result<Self, PodError> {
        Self::at(root, name)?.make(root)
    }

    pub(crate) fn make(self, root: &Path) -> Result<Self, PodError> {
        fs::create_dir_all(root)
            .and_then(|()| private(root))
            .map_err(PodError::file("make", root))?;
        fs::create_dir(&self.path)
            .and_then(|()| private(&self.path))
            .map_err(PodError::file("make", &self.path))?;
        let owner = self.file(OWNER);
        fs::write(&owner, format!("{}\n", Identity::own()))
            .map_err(PodError::file("write", &owner))?;
        Ok(self)
    }

    /// The directory of a pod, whether it exists or not.
    ///
    /// # Errors
    /// When the pod's name is no file name.
    pub fn at(root: &Path, name: &str) -> Result<Self, PodError> {
        if !is_name(name) {
            return Err(PodError::Name(name.to_owned()));
        }
        Ok(Self {
            path: root.join(name),
            logs: None,
        })
    }

    /// The same with its logs in another directory, where they stay.
    #[must_use]
    pub fn with_logs(self, logs: PathBuf) -> Self {
        Self {
            logs: Some(logs),
            ..self
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory that the guest sees.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.file("shared")
    }

    /// Keeps the logs in a directory of the pod's name in `folder`, if there is one, from where nothing is
    /// removed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn with_logs_in(mut self, folder: Option<&Path>) -> Result<Self, PodError> {
        let Some(folder) = folder else {
            return Ok(self);
        };
        let name = self.path.file_name().unwrap_or_default();
        let logs = folder.join(name);
        fs::create_dir_all(&logs)
            .and_then(|()| private(&logs))
            .map_err(PodError::file("make", &logs))?;
        self.logs = Some(logs);
        Ok(self)
    }

    /// Where the log of a part is.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        let logs = self.logs.as_ref().unwrap_or(&self.path);
        logs.join(format!("{part}.log"))
    }

    /// Makes a directory for what a daemon must not forget.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn state(&self, part: &str) -> Result<PathBuf, PodError> {
        let path = self.file(&format!("{part}.{STATE}"));
        fs::create_dir(&path)
            .and_then(|()| private(&path))
            .map_err(PodError::file("make", &path))?;
        Ok(path)
    }

    /// Removes what [`state`](Self::state) made, if it did.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove_state(&self, part: &str) -> Result<(), PodError> {
        let path = self.file(&format!("{part}.{STATE}"));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(PodError::file("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Path for a socket, short enough to be one.
    ///
    /// # Errors
    /// When it is too long.
    pub fn socket(&self, name: &str) -> Result<PathBuf, PodError> {
        checked_socket(self.file(name))
    }

    /// Removes it. The shared directory must be empty: what is mounted there is not ours to remove.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self) -> Result<(), PodError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(PodError::file("read", &self.path))?,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory && path.extension().is_some_and(|it| it == STATE) {
                fs::remove_dir_all(&path)
            } else if is_directory {
                fs::remove_dir(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(PodError::file("remove", &path))?;
        }
        fs::remove_dir(&self.path).map_err(PodError::file("remove", &self.path))
    }
}

/// Refuses a path that no unix socket can have.
pub(crate) fn checked_socket(path: PathBuf) -> Result<PathBuf, PodError> {
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET_PATH {
        return Err(PodError::LongSocket { path, length });
    }
    Ok(path)
}

fn private(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Whether a pod or a container can be called this: it becomes a file name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_elsewhere() {
        for name in ["", ".", "..", ".x", "a/b", "a b", "\u{17e}"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("default-a_b.c"));
    }

    #[test]
    fn only_what_is_empty_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let directory = PodDirectory::create(root.path(), "pod").unwrap();
        fs::create_dir_all(directory.shared().join("precious")).unwrap();
        fs::write(directory.log("x"), "y").unwrap();
        assert!(directory.remove().is_err());
        assert!(directory.shared().join("precious").exists());
        fs::remove_dir(directory.shared().join("precious")).unwrap();
        directory.remove().unwrap();
        assert!(!directory.path().exists());
        directory.remove().unwrap();
    }

    #[test]
    fn pods_of_two_namespaces_have_two_names() {
        let names = [
            pod_name("team", "a-web"),
            pod_name("team-a", "web"),
            pod_name("team-a-web", ""),
            pod_name("", "team-a-web"),
        ];
        assert_eq!(names[0], "team-a-web");
        for (index, name) in names.iter().enumerate() {
            assert!(is_name(name) && name.len() <= LONGEST_NAME, "{name}");
            assert!(!names[..index].contains(name), "{name} twice");
        }
    }

    #[test]
    fn names_fit_into_socket_paths() {
        assert_eq!(pod_name("default", "a"), "default-a");
        let long = pod_name("k8s.io", &"f".repeat(64));
        assert_eq!(long.len(), 32);
        assert_ne!(long, pod_name("k8s.io", &"e".repeat(64)));
        assert_eq!(pod_name("default", "a/b").len(), 32);
    }
}

//! What is known of containers between two calls: a directory for each.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringside_pod::directory::{self, is_name};
use ringside_pod::identity::Identity;
use serde::{Deserialize, Serialize};

use super::OciError;
use crate::options::GlobalOptions;

/// Where root's containers have their state.
const ROOT: &str = "/run/ringside/oci";

/// Where all containers of one user have their state.
#[derive(Debug, Clone)]
pub(super) struct StateRoot(PathBuf);

/// One container's directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: String,
    path: PathBuf,
    /// What the shim takes for containerd's namespace: containers of the same id in another root are others. It begins
    /// as none of containerd's own does, whose first character is a letter or digit.
    pub(super) namespace: String,
}

/// `state.json`: all that `ringside` must know of a container when its shim is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) bundle: PathBuf,
    /// RFC 3339.
    pub(super) created: String,
    /// Its user's id on the host.
    pub(super) owner: u32,
    pub(super) oci_version: String,
    pub(super) annotations: HashMap<String, String>,
    /// The container whose pod it is in, if it is another.
    pub(super) sandbox: Option<String>,
    /// The process that stands for it on the host, once there is one.
    pub(super) holder: Option<Identity>,
    /// It was made: the engine has been told so.
    pub(super) is_made: bool,
    /// How its first process ended.
    pub(super) exit: Option<u32>,
}

impl StateRoot {
    pub(super) fn of(global: &GlobalOptions) -> Self {
        let usual = || match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) if !rustix::process::geteuid().is_root() => {
                Path::new(&folder).join("ringside/oci")
            }
            _ => ROOT.into(),
        };
        let path = global.root.clone().unwrap_or_else(usual);
        Self(std::path::absolute(&path).unwrap_or(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A container's directory, whether it exists or not.
    ///
    /// # Errors
    /// When the id is no file name.
    pub(super) fn entry(&self, id: &str) -> Result<Entry, OciError> {
        if !is_name(id) {
            return Err(OciError::Name(id.to_owned()));
        }
        let namespace = if self.0 == Path::new(ROOT) {
            "_oci".to_owned()
        } else {
            let mut hasher = DefaultHasher::new();
            self.0.hash(&mut hasher);
            format!("_oci{:08x}", hasher.finish() >> 32)
        };
        Ok(Entry {
            id: id.to_owned(),
            path: self.0.join(id),
            namespace,
        })
    }

    /// The container of this id.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find(&self, id: &str) -> Result<(Entry, Record), OciError> {
        let entry = self.entry(id)?;
        let record = entry.read()?;
        Ok((entry, record))
    }

    /// All containers, by id.
    ///
    /// # Errors
    /// When the directory cannot be read; one that is not there holds none.
    pub(super) fn all(&self) -> Result<Vec<(Entry, Record)>, OciError> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(OciError::file("read", &self.0))?,
        };
        let names = entries
            .flatten()
            .filter_map(|it| it.file_name().into_string().ok());
        // One that is made or removed at this moment is passed over.
        let mut all: Vec<_> = names.filter_map(|id| self.find(&id).ok()).collect();
        all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        Ok(all)
    }
}

impl Entry {
    /// Makes it, mode 0700.
    ///
    /// # Errors
    /// When there is one of this id.
    pub(super) fn make(&self, record: &Record) -> Result<(), OciError> {
        let root = self.path.parent().unwrap_or(&self.path);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private
            .recursive(true)
            .create(root)
            .map_err(OciError::file("make", root))?;
        match private.recursive(false).create(&self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(OciError::Exists(self.id.clone()));
            }
            made => made.map_err(OciError::file("make", &self.path))?,
        }
        self.write(record)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the shim of the pod that begins with this container listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.file("shim.sock")
    }

    /// The run directory of that pod.
    pub(super) fn pod_directory(&self) -> PathBuf {
        directory::root().join(directory::pod_name(&self.namespace, &self.id))
    }

    /// # Errors
    /// When there is no such container.
    pub(super) fn read(&self) -> Result<Record, OciError> {
        let path = self.file("state.json");
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(OciError::NoContainer(self.id.clone()))
            }
            text => serde_json::from_slice(&text.map_err(OciError::file("read", &path))?)
                .map_err(|source| OciError::Malformed { path, source }),
        }
    }

    /// Writes it whole or not at all.
    pub(super) fn write(&self, record: &Record) -> Result<(), OciError> {
        let (path, new) = (self.file("state.json"), self.file("state.json.new"));
        let text = serde_json::to_vec(record).map_err(|source| OciError::Malformed {
            path: path.clone(),
            source,
        })?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(OciError::file("write", &path))
    }

    /// Who changes a container that exists does so alone, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, OciError> {
        let path = self.file("lock");
        let file = match File::create(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(OciError::NoContainer(self.id.clone()));
            }
            file => file.map_err(OciError::file("make", &path))?,
        };
        file.lock().map_err(OciError::file("lock", &path))?;
        Ok(file)
    }

    /// Removes it.
    pub(super) fn remove(&self) -> Result<(), OciError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(OciError::file("remove", &self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            bundle: "/b".into(),
            created: String::new(),
            owner: 0,
            oci_version: "1.0.2".into(),
            annotations: HashMap::new(),
            sandbox: None,
            holder: None,
            is_made: false,
            exit: None,
        }
    }

    #[test]
    fn an_id_is_given_once_and_can_be_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot(folder.path().join("oci"));
        assert!(root.all().unwrap().is_empty());
        let entry = root.entry("c1").unwrap();
        assert!(matches!(entry.lock(), Err(OciError::NoContainer(_))));
        entry.make(&record()).unwrap();
        assert!(matches!(entry.make(&record()), Err(OciError::Exists(_))));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(entry.path()).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o700);
        let _held = entry.lock().unwrap();
        assert_eq!(root.all().unwrap().len(), 1);
        entry.remove().unwrap();
        assert!(matches!(root.find("c1"), Err(OciError::NoContainer(_))));
        entry.make(&record()).unwrap();
    }

    #[test]
    fn ids_are_file_names_and_roots_have_namespaces() {
        let (a, b) = (StateRoot("/a".into()), StateRoot("/b".into()));
        for id in ["", "..", "a/b", ".a", "a b"] {
            assert!(matches!(a.entry(id), Err(OciError::Name(_))), "{id}");
        }
        let [a, b] = [a, b].map(|root| root.entry("c").unwrap().namespace);
        assert_ne!(a, b);
        let usual = StateRoot(ROOT.into()).entry("c").unwrap();
        for namespace in [a, b, usual.namespace.clone()] {
            assert!(
                namespace.starts_with('_'),
                "containerd may have {namespace}, too"
            );
        }
        assert!(usual.pod_directory().ends_with("_oci-c"));
    }
}

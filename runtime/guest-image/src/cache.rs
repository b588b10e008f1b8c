//! Where downloaded and built things stay between runs.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::Error;

/// A directory of files that can be made again at any time.
///
/// Everything is built under a temporary name and renamed into place, so a reader sees a whole
/// file or none; [`Cache::lock`] keeps two builders of the same thing apart.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Stands between a draft's final name and the id of the process that builds it.
const DRAFT: &str = ".new.";

impl Cache {
    /// Opens the cache at its usual place: `$RINGSIDE_CACHE`, else `$XDG_CACHE_HOME/ringside`,
    /// else `/var/cache/ringside` for root, else `~/.cache/ringside`.
    ///
    /// # Errors
    /// When there is no such place or it cannot be made.
    pub fn open_default() -> Result<Self, Error> {
        let set = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let is_root = rustix::process::geteuid().is_root();
        Self::open(place(set, is_root).ok_or(Error::NoCache)?)
    }

    /// Opens the cache in `root`, making the directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(Error::file("make the cache directory", &root))?;
        Ok(Self { root })
    }

    /// The path of `name` in the cache.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Waits until this process alone may build, for as long as the returned file is open, and
    /// removes what killed builders left half done.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn lock(&self) -> Result<File, Error> {
        let file = self.lock_named("lock")?;
        self.remove_abandoned();
        Ok(file)
    }

    /// As [`lock`](Self::lock), for what takes so long that nobody else may wait for it.
    pub(crate) fn lock_named(&self, name: &str) -> Result<File, Error> {
        let path = self.path(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file("open the cache's lock", &path))?;
        if file.try_lock().is_err() {
            tracing::info!(
                "waiting for another process that builds in {}",
                self.root.display()
            );
            file.lock().map_err(Error::file("lock", &path))?;
        }
        Ok(file)
    }

    /// A folder to work in, which goes when it is dropped, or with the next builder.
    pub(crate) fn workshop(&self, name: &str) -> Result<Workshop, Error> {
        let path = self.path(format!("{name}{DRAFT}{}", std::process::id()));
        remove(&path)?;
        fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
        Ok(Workshop(path))
    }

    /// Makes `name` by letting `build` fill a temporary path, then renaming it into place.
    /// What `build` left behind is removed when it fails.
    ///
    /// # Errors
    /// What `build` says, or that the result cannot be renamed.
    pub fn publish(
        &self,
        name: &str,
        build: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let target = self.path(name);
        let draft = self.path(format!("{name}{DRAFT}{}", std::process::id()));
        remove(&draft)?;
        let built = build(&draft).and_then(|()| {
            write_back(&draft)?;
            // A file is replaced in one step, a folder only when nothing is in its place.
            if target.is_dir() {
                remove(&target)?;
            }
            fs::rename(&draft, &target).map_err(Error::file("move into place", &target))
        });
        match built {
            Ok(()) => Ok(target),
            Err(error) => {
                remove(&draft)?;
                Err(error)
            }
        }
    }

    /// What cannot be removed now is tried again by the next builder.
    fn remove_abandoned(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let builder = name.to_str().and_then(|name| name.rsplit_once(DRAFT));
            let builder = builder.and_then(|(_, id)| id.parse::<u32>().ok());
            if builder.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
                let _ = remove(&entry.path());
            }
        }
    }
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Workshop(PathBuf);

impl Workshop {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What stays is removed by the next builder.
        let _ = remove(&self.0);
    }
}

/// After a power failure a name must not stand for a file without its content.
fn write_back(path: &Path) -> Result<(), Error> {
    let opened = File::open(path).map_err(Error::file("open", path))?;
    let written = if path.is_dir() {
        rustix::fs::syncfs(&opened).map_err(Into::into)
    } else {
        opened.sync_all()
    };
    written.map_err(Error::file("write back", path))
}

fn place(set: impl Fn(&'static str) -> Option<PathBuf>, is_root: bool) -> Option<PathBuf> {
    set("RINGSIDE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("ringside")))
        .or_else(|| is_root.then(|| PathBuf::from("/var/cache/ringside")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/ringside")))
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(Error::file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_environment() {
        let with = |names: &'static [&'static str], is_root| {
            place(
                |name| names.contains(&name).then(|| PathBuf::from("/x")),
                is_root,
            )
        };
        assert_eq!(with(&["RINGSIDE_CACHE", "HOME"], true), Some("/x".into()));
        assert_eq!(with(&["XDG_CACHE_HOME"], true), Some("/x/ringside".into()));
        assert_eq!(with(&["HOME"], true), Some("/var/cache/ringside".into()));
        assert_eq!(with(&["HOME"], false), Some("/x/.cache/ringside".into()));
        assert_eq!(with(&[], false), None);
    }

    #[test]
    fn drafts_of_the_dead_go() {
        let dir = tempfile::tempdir().unwrap();
        let alive = format!("thing.new.{}", std::process::id());
        // Above the largest id a Linux process can have (PID_MAX_LIMIT, 4194304).
        for name in ["thing.new.99999999", "thing.new.x", "thing", &alive] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let cache = Cache::open(dir.path()).unwrap();
        let _lock = cache.lock().unwrap();
        assert!(!dir.path().join("thing.new.99999999").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_failed_build_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let write = |text: &'static str| {
            move |path: &Path| fs::write(path, text).map_err(Error::file("write", path))
        };
        cache.publish("thing", write("first")).unwrap();
        let failed = cache.publish("thing", |path| {
            fs::write(path, "half").unwrap();
            Err(Error::NoCache)
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(cache.path("thing")).unwrap(), "first");
        cache.publish("thing", write("second")).unwrap();
        assert_eq!(fs::read_to_string(cache.path("thing")).unwrap(), "second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

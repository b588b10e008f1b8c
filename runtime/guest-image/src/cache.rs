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

    /// Waits until this process alone may build, for as long as the returned file is open.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn lock(&self) -> Result<File, Error> {
        let path = self.path("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file("open the cache's lock", &path))?;
        file.lock().map_err(Error::file("lock", &path))?;
        Ok(file)
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
        let draft = self.path(format!("{name}.new.{}", std::process::id()));
        remove(&draft)?;
        let built = build(&draft).and_then(|()| {
            remove(&target)?;
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

//! A directory that vanishes with the test.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// A temporary directory. When dropped, what is mounted below it is unmounted and the directory
/// is removed. Its path is short enough for unix sockets.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// Makes a directory whose name tells the test.
    ///
    /// # Errors
    /// When the temporary directory is not writable.
    pub fn new(test: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("lab-{test}-"))
            .tempdir()?;
        Ok(Self { dir })
    }

    /// [`new`](Self::new) in memory: on the tmpfs that every Linux has at `/dev/shm`.
    ///
    /// # Errors
    /// When that is not writable.
    pub fn in_memory(test: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("lab-{test}-"))
            .tempdir_in("/dev/shm")?;
        Ok(Self { dir })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the directory; nothing is made there.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a subdirectory.
    ///
    /// # Errors
    /// When it exists already.
    pub fn dir(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Makes a file with `content`.
    ///
    /// # Errors
    /// When the file system is full.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Makes a file of `len` bytes that occupies no space yet: a disk image.
    ///
    /// # Errors
    /// When the file system does not take that length.
    pub fn image(&self, name: &str, len: u64) -> io::Result<PathBuf> {
        let path = self.join(name);
        File::create_new(&path)?.set_len(len)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The innermost mounts are the last ones listed.
        for mount in mounts_below(self.path()).into_iter().rev() {
            if let Err(error) = unmount(&mount, UnmountFlags::DETACH) {
                eprintln!("lab: cannot unmount {}: {error}", mount.display());
            }
        }
    }
}

/// The calling thread may be in a mount namespace of its own ([`crate::mounts`]).
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mount_point = |line: &str| line.split(' ').nth(4).map(unescape);
    table
        .lines()
        .filter_map(mount_point)
        .filter(|path| path.starts_with(dir))
        .collect()
}

/// The kernel writes blanks and backslashes in paths as `\ooo` (proc(5)).
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, escaped) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/tmp/a\040b\134c"), Path::new(r"/tmp/a b\c"));
    }

    #[test]
    fn the_directory_goes_with_the_value() {
        let scratch = Scratch::new("scratch").unwrap();
        let image = scratch.image("disk", 1 << 20).unwrap();
        assert_eq!(fs::metadata(&image).unwrap().len(), 1 << 20);
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}

//! The file system by its own trait, as a guest that keeps to no rules would use it.

mod closed_nodes;
mod confinement;
mod counting;
mod creating;

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fuse_backend_rs::api::filesystem::{Context, Entry, FileSystem};
use tempfile::TempDir;

use super::{Config, Passthrough};
use crate::fuse::ROOT;
use crate::fuse::abi::CreateIn;

/// A shared directory with something beside it that must stay out of reach.
struct Tree {
    outer: TempDir,
    fs: Passthrough,
}

impl Tree {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("shared")).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        let mut config = Config::new(outer.path().join("shared"));
        change(&mut config);
        Self {
            fs: Passthrough::open(config).unwrap(),
            outer,
        }
    }

    /// A path on the host.
    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.outer.path().join("shared").join(name)
    }

    fn lookup(&self, name: &CStr) -> io::Result<Entry> {
        self.fs.lookup(&root(), ROOT, name)
    }

    fn create(&self, name: &CStr, flags: i32) -> io::Result<(Entry, u64)> {
        let args = CreateIn {
            flags: flags.cast_unsigned(),
            mode: 0o644,
            umask: 0,
            fuse_flags: 0,
        };
        let (entry, handle, ..) = self.fs.create(&root(), ROOT, name, args)?;
        Ok((entry, handle.unwrap()))
    }

    fn open(&self, inode: u64, flags: i32) -> io::Result<u64> {
        Ok(self
            .fs
            .open(&root(), inode, flags.cast_unsigned(), 0)?
            .0
            .unwrap())
    }
}

/// Whoever the tests run as.
fn root() -> Context {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    Context { uid, gid, pid: 1 }
}

#[track_caller]
fn assert_errno<T>(result: io::Result<T>, expected: i32) {
    let errno = result.err().and_then(|error| error.raw_os_error());
    assert_eq!(
        errno,
        Some(expected),
        "expected {}",
        io::Error::from_raw_os_error(expected)
    );
}

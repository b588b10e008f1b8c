//! The file that all contestants of a target serve.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::config::BlkConfig;
use super::workload::Target;
use crate::interrupt::{Interrupt, Interrupted};
use crate::peer::Backing;

const CHUNK: usize = 1 << 20;

/// What a target's contestants serve. Its file goes with the value.
#[derive(Debug)]
pub(super) struct Disk {
    file: Option<TempPath>,
    direct: bool,
    bytes: u64,
}

/// The target cannot be had here.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("cannot write a file in {}: {source}", dir.display())]
    File { dir: PathBuf, source: io::Error },
    #[error("{} is not on tmpfs: give --tmpfs DIR", .0.display())]
    NotTmpfs(PathBuf),
    #[error("the file system of {} takes no O_DIRECT ({source}): give --scratch DIR", dir.display())]
    NoDirect { dir: PathBuf, source: io::Error },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Disk {
    /// Makes the target's file, every block of it written.
    pub(super) fn prepare(
        target: Target,
        config: &BlkConfig,
        interrupt: &Interrupt,
    ) -> Result<Self, DiskError> {
        let (dir, direct) = match target {
            Target::Tmpfs => (&config.run.tmpfs, false),
            Target::Disk => (&config.run.scratch, true),
            Target::Null => {
                return Ok(Self {
                    file: None,
                    direct: false,
                    bytes: config.bytes,
                });
            }
        };
        let failed = |source| DiskError::File {
            dir: dir.clone(),
            source,
        };
        if target == Target::Tmpfs && !crate::scenario::on_tmpfs(dir).map_err(failed)? {
            return Err(DiskError::NotTmpfs(dir.clone()));
        }
        let builder = tempfile::Builder::new()
            .prefix("ringside-perf-")
            .suffix(".img")
            .tempfile_in(dir);
        let (mut file, path) = builder.map_err(failed)?.into_parts();
        if direct {
            probe_direct(&path, dir)?;
        }
        write(&mut file, config.bytes, interrupt)?.map_err(failed)?;
        Ok(Self {
            file: Some(path),
            direct,
            bytes: config.bytes,
        })
    }

    /// The file, where there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether the file is used past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// What a daemon is to serve.
    pub(super) fn backing(&self) -> Backing<'_> {
        match self.file() {
            Some(path) => Backing::File {
                path,
                direct: self.direct,
            },
            None => Backing::Null { bytes: self.bytes },
        }
    }
}

fn probe_direct(file: &Path, dir: &Path) -> Result<(), DiskError> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_DIRECT).open(file);
    opened.map(drop).map_err(|source| DiskError::NoDirect {
        dir: dir.to_owned(),
        source,
    })
}

/// Fills the file with bytes that no layer below compresses, and syncs it.
fn write(
    file: &mut File,
    bytes: u64,
    interrupt: &Interrupt,
) -> Result<io::Result<()>, Interrupted> {
    let chunk = lab::pattern(1, CHUNK);
    for _ in 0..bytes / CHUNK as u64 {
        interrupt.check()?;
        if let Err(error) = file.write_all(&chunk) {
            return Ok(Err(error));
        }
    }
    Ok(file.sync_all())
}

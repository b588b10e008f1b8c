//! The directory that all contestants of a target share, and what is in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::need;
use tempfile::TempDir;

use super::config::FsConfig;
use super::workload::Target;
use crate::interrupt::{Interrupt, Interrupted};
use crate::peer::fio::Place;

/// Bytes of a small file.
pub(super) const SMALL: usize = 4096;
/// Files of data: as many as the most jobs.
const DATA_FILES: u16 = 4;
const CHUNK: usize = 1 << 20;
/// Files in each directory of the tree.
const PER_DIRECTORY: u32 = 25;
/// Names, relative to the ground.
pub(super) const DATA: &str = "data";
pub(super) const FILES: &str = "files";
pub(super) const TREE: &str = "tree";

/// The shared directory. It goes with the value.
#[derive(Debug)]
pub(super) struct Ground {
    dir: TempDir,
    /// Entries of the tree, as `find` sees them.
    pub(super) tree_entries: u64,
    /// Why there is no tree that git knows.
    pub(super) no_git: Option<String>,
    pub(super) files: u32,
    pub(super) dd_count: u32,
    /// Bytes of each file of data.
    pub(super) span: u64,
}

/// The target cannot be had here.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroundError {
    #[error("cannot fill a directory in {}: {source}", dir.display())]
    Io { dir: PathBuf, source: io::Error },
    #[error("{} is not on tmpfs: give --tmpfs DIR", .0.display())]
    NotTmpfs(PathBuf),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Ground {
    pub(super) fn prepare(
        target: Target,
        config: &FsConfig,
        interrupt: &Interrupt,
    ) -> Result<Self, GroundError> {
        let parent = match target {
            Target::Tmpfs => &config.run.tmpfs,
            Target::Disk => &config.run.scratch,
        };
        let failed = |source| GroundError::Io {
            dir: parent.clone(),
            source,
        };
        if target == Target::Tmpfs && !crate::scenario::on_tmpfs(parent).map_err(failed)? {
            return Err(GroundError::NotTmpfs(parent.clone()));
        }
        let dir = tempfile::Builder::new()
            .prefix("ringside-perf-")
            .tempdir_in(parent)
            .map_err(failed)?;
        let span = config.bytes / u64::from(DATA_FILES);
        write_data(&dir.path().join(DATA), span, interrupt)?.map_err(failed)?;
        fill(&dir.path().join(FILES), config.files, SMALL).map_err(failed)?;
        interrupt.check()?;
        let tree = dir.path().join(TREE);
        plant(&tree, (config.files / 2).max(PER_DIRECTORY)).map_err(failed)?;
        let no_git = commit(&tree).err();
        let tree_entries = count(&tree).map_err(failed)?;
        Ok(Self {
            dir,
            tree_entries,
            no_git,
            files: config.files,
            dd_count: config.dd_count,
            span,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its name in the directory that it lies in.
    pub(super) fn name(&self) -> PathBuf {
        self.path()
            .file_name()
            .map(PathBuf::from)
            .unwrap_or_default()
    }

    /// A fresh directory for one turn, with so many files of so many bytes in it.
    pub(super) fn fresh(&self, files: u32, bytes: usize) -> io::Result<TempDir> {
        let dir = tempfile::Builder::new()
            .prefix("fresh-")
            .tempdir_in(self.path())?;
        fill(dir.path(), files, bytes)?;
        Ok(dir)
    }
}

/// Name of a small file.
pub(super) fn small_name(index: u32) -> String {
    format!("f{index:06}")
}

fn fill(dir: &Path, files: u32, bytes: usize) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let content = vec![0x5a; bytes];
    for index in 0..files {
        fs::write(dir.join(small_name(index)), &content)?;
    }
    Ok(())
}

/// Bytes that no layer below compresses.
fn write_data(dir: &Path, span: u64, interrupt: &Interrupt) -> Result<io::Result<()>, Interrupted> {
    let chunk = lab::pattern(1, CHUNK);
    for index in 0..DATA_FILES {
        interrupt.check()?;
        let write = || {
            fs::create_dir_all(dir)?;
            let file = File::create(dir.join(Place::file_name(index)))?;
            for at in 0..span / CHUNK as u64 {
                file.write_all_at(&chunk, at * CHUNK as u64)?;
            }
            file.sync_all()
        };
        if let Err(error) = write() {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// A tree like a program's sources: directories of files of 1 to 8 KiB, all different.
fn plant(tree: &Path, files: u32) -> io::Result<()> {
    for index in 0..files {
        let directory = index / PER_DIRECTORY;
        let dir = tree.join(format!("part{:02}/module{directory:04}", directory % 16));
        if index % PER_DIRECTORY == 0 {
            fs::create_dir_all(&dir)?;
        }
        let line = format!("line of file {index}\n");
        let content = line.repeat(40 + index as usize % 300);
        fs::write(dir.join(format!("source{index:05}.txt")), content)?;
    }
    Ok(())
}

/// Makes the tree one that git knows, packed.
fn commit(tree: &Path) -> Result<(), String> {
    let git = need::program("git").map_err(|error| error.to_string())?;
    let identity = ["-c", "user.name=perf", "-c", "user.email=perf@localhost"];
    let steps: [&[&str]; 4] = [
        &["init", "-q"],
        &["add", "."],
        &["commit", "-q", "-m", "tree"],
        &["repack", "-a", "-d", "-q"],
    ];
    for step in steps {
        let output = Command::new(&git)
            .args(identity)
            .args(step)
            .current_dir(tree)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output();
        let output = output.map_err(|error| format!("cannot run git: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("git {} failed: {said}", step.join(" ")));
        }
    }
    Ok(())
}

fn count(dir: &Path) -> io::Result<u64> {
    let mut entries = 1;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        entries += match entry.file_type()?.is_dir() {
            true => count(&entry.path())?,
            false => 1,
        };
    }
    Ok(entries)
}

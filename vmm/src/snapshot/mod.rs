//! A machine in two files of a folder: `memory` and `state.json`. The latter is written last: where it is,
//! the snapshot is whole.

mod state;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::memory::{DirtyLog, GuestMemory};
pub use state::{DeviceState, MachineState, PlatformState};

/// What `state.json` begins with.
const FORMAT: &str = "ringside-vmm snapshot";
/// Changes whenever another program would misunderstand.
pub const VERSION: u32 = 1;

const STATE: &str = "state.json";
const MEMORY: &str = "memory";
/// Bytes of `state.json` at most: a daemon's state is in it.
const LONGEST: u64 = 2 << 30;

/// Why there is no snapshot, or none that can be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// A file of it.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody's snapshot is not written over.
    #[error("{} has a snapshot already", .0.display())]
    Exists(PathBuf),
    /// Another file.
    #[error("{} is not a snapshot's state", .0.display())]
    Format(PathBuf),
    /// Another program's.
    #[error("{} has version {found}, and this program reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Something in it.
    #[error("{}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::File {
        step,
        path: path.to_owned(),
        source,
    }
}

/// A folder for a snapshot that is to be written.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
}

impl Writer {
    /// Makes the folder, if it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or has a snapshot.
    pub fn new(folder: &Path) -> Result<Self, SnapshotError> {
        if !folder.is_dir() {
            DirBuilder::new()
                .mode(0o700)
                .create(folder)
                .map_err(failed("make", folder))?;
        }
        if folder.join(STATE).exists() {
            return Err(SnapshotError::Exists(folder.to_owned()));
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The memory's file, empty. Only this user may read it: the guest's secrets are in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn memory(&self) -> Result<MemoryFile, SnapshotError> {
        let path = self.folder.join(MEMORY);
        let file = create(&path)?;
        Ok(MemoryFile { path, file })
    }

    /// Writes the rest, once the memory's file is whole.
    ///
    /// # Errors
    /// When there is no room, or no permission.
    pub fn finish(&self, memory: MemoryFile, state: &MachineState) -> Result<(), SnapshotError> {
        memory.keep()?;
        let path = self.folder.join(STATE);
        let content = |source| SnapshotError::Content {
            path: path.clone(),
            source,
        };
        let text = serde_json::to_vec(&Whole::of(state)).map_err(content)?;
        let part = self.folder.join("state.json.part");
        let mut file = create(&part)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&part, &path))
            .map_err(failed("write", &path))
    }
}

/// A snapshot's memory, while it is written.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    file: File,
}

impl MemoryFile {
    /// Writes all of the memory.
    ///
    /// # Errors
    /// When there is no room.
    pub fn write(&mut self, memory: &GuestMemory) -> Result<(), SnapshotError> {
        memory
            .save(&mut self.file)
            .map_err(failed("write", &self.path))
    }

    /// Writes again what the log has marked since, and takes the marks.
    ///
    /// # Errors
    /// When there is no room.
    pub fn update(&mut self, memory: &GuestMemory, log: &DirtyLog) -> Result<(), SnapshotError> {
        memory
            .save_marked(log, &mut self.file)
            .map_err(failed("write", &self.path))
    }

    /// Waits until it is on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep(&self) -> Result<(), SnapshotError> {
        self.file.sync_all().map_err(failed("write", &self.path))
    }
}

fn create(path: &Path) -> Result<File, SnapshotError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create", path))
}

#[derive(serde::Serialize)]
#[serde(rename_all = "kebab-case")]
struct Whole<'a> {
    format: &'static str,
    version: u32,
    machine: &'a MachineState,
}

impl<'a> Whole<'a> {
    fn of(machine: &'a MachineState) -> Self {
        Self {
            format: FORMAT,
            version: VERSION,
            machine,
        }
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
struct Body {
    machine: MachineState,
}

/// A snapshot that was read; its memory is still in its file.
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    /// The machine without its memory.
    pub machine: MachineState,
}

impl Snapshot {
    /// Reads the machine's state.
    ///
    /// # Errors
    /// When there is none, or one of another version.
    pub fn open(folder: &Path) -> Result<Self, SnapshotError> {
        let path = folder.join(STATE);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
            .map_err(failed("read", &path))?;
        let machine = parse(&path, &text)?;
        Ok(Self {
            folder: folder.to_owned(),
            machine,
        })
    }

    /// Fills memory that is zero.
    ///
    /// # Errors
    /// When the file cannot be read, or is another guest's.
    pub fn load_memory(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
        let path = self.folder.join(MEMORY);
        File::open(&path)
            .and_then(|mut file| memory.load(&mut file))
            .map_err(failed("load", &path))
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<MachineState, SnapshotError> {
    let not_one = || SnapshotError::Format(path.to_owned());
    let head: Head = serde_json::from_slice(text).map_err(|_| not_one())?;
    if head.format != FORMAT {
        return Err(not_one());
    }
    if head.version != VERSION {
        return Err(SnapshotError::Version {
            path: path.to_owned(),
            found: head.version,
        });
    }
    let body: Body = serde_json::from_slice(text).map_err(|source| SnapshotError::Content {
        path: path.to_owned(),
        source,
    })?;
    Ok(body.machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(Path::new("state.json"), text.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn another_version_and_other_files_are_refused() {
        let other = message(r#"{"format": "ringside-vmm snapshot", "version": 2, "new": 1}"#);
        assert_eq!(
            other,
            "state.json has version 2, and this program reads version 1"
        );
        assert_eq!(message("{}"), "state.json is not a snapshot's state");
        assert_eq!(
            message(r#"{"format": "x", "version": 1}"#),
            "state.json is not a snapshot's state"
        );
        let error = parse(
            Path::new("state.json"),
            br#"{"format": "ringside-vmm snapshot", "version": 1, "machine": {}}"#,
        );
        assert!(matches!(error, Err(SnapshotError::Content { .. })));
    }

    #[test]
    fn a_snapshot_is_not_written_over() {
        let scratch = lab::scratch::Scratch::new("snapshot").unwrap();
        let folder = scratch.join("new");
        assert!(Writer::new(&folder).is_ok());
        fs::write(folder.join(STATE), "").unwrap();
        assert!(matches!(
            Writer::new(&folder),
            Err(SnapshotError::Exists(_))
        ));
    }
}

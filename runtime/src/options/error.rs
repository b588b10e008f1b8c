use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::ByteSize;

/// An option that is wrong, and why.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Nothing says where the root file system comes from.
    #[error("--rootfs DIR is missing")]
    NoRoot,
    /// `--image` without `--root block`.
    #[error("--image is for --root block only")]
    ImageWithoutBlock,
    /// An image that does not exist and cannot be made.
    #[error("--image {0}: does not exist, and there is no --rootfs to make it from")]
    NoImage(PathBuf),
    /// A path that leads nowhere.
    #[error("{option} {path}: cannot find it")]
    NotFound {
        /// The option.
        option: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A root that is something else than a directory.
    #[error("--rootfs {0}: is no directory")]
    RootIsNoDirectory(PathBuf),
    /// A directory for a disk.
    #[error("--disk {0}: is a directory, not an image")]
    DiskIsDirectory(PathBuf),
    /// Too little memory to boot.
    #[error("--memory {typed}: a guest needs at least {least}")]
    LittleMemory {
        /// What was typed.
        typed: ByteSize,
        /// The least that works.
        least: ByteSize,
    },
    /// Memory that no hypervisor can give.
    #[error("--memory {0}: must be a whole number of MiB, as in 512M")]
    OddMemory(ByteSize),
    /// A working directory that depends on where one is.
    #[error("--cwd {0}: must start with /")]
    RelativeFolder(PathBuf),
    /// Not a variable.
    #[error("--env {}: must be NAME=VALUE", .0.display())]
    NoVariable(OsString),
}

impl OptionsError {
    /// Turns an I/O error into one that names the option and its value.
    pub(super) fn not_found(option: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::NotFound {
            option,
            path,
            source,
        }
    }
}

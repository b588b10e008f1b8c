//! What an image file is, and never by guessing.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How blocks are kept in an image.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Block n at byte 512 n.
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
}

/// The first bytes of every qcow2 image.
pub(super) const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// An image that could be either, so that someone has to say which.
#[derive(Debug, Error)]
#[error(
    "{0} begins like a qcow2 image: name its format, --format qcow2 (format=qcow2 of a --disk), or raw \
     if a guest wrote that into its raw disk"
)]
pub struct FormatNotNamed(PathBuf);

impl Format {
    /// The format of `image`, for which none was named: raw, unless it begins like qcow2. A guest can
    /// write what it likes to the start of a raw disk; taking that for qcow2 would have the guest choose
    /// the host's files it reads.
    ///
    /// # Errors
    /// When it begins like qcow2.
    pub fn unnamed(image: &Path) -> Result<Self, FormatNotNamed> {
        let mut start = [0; 4];
        // A pipe would keep us waiting. What cannot be read is told where the image is opened.
        let kind = std::fs::metadata(image).map(|stat| stat.file_type());
        if kind.is_ok_and(|kind| kind.is_file() || kind.is_block_device())
            && let Ok(mut file) = File::open(image)
            && file.read_exact(&mut start).is_ok()
            && start == QCOW2_MAGIC
        {
            return Err(FormatNotNamed(image.to_owned()));
        }
        Ok(Self::Raw)
    }
}

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::OptionsError;
use crate::run::Disk;

/// A data disk as typed: `IMG` or `IMG,ro`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOption {
    /// The image or block device.
    pub image: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
}

impl From<OsString> for DiskOption {
    fn from(text: OsString) -> Self {
        match text.as_bytes().strip_suffix(b",ro") {
            Some(image) => Self {
                image: OsString::from_vec(image.to_vec()).into(),
                read_only: true,
            },
            None => Self {
                image: text.into(),
                read_only: false,
            },
        }
    }
}

impl DiskOption {
    /// The disk, if there is one.
    pub(super) fn validate(&self) -> Result<Disk, OptionsError> {
        let image = self.image.canonicalize();
        let image = image.map_err(OptionsError::not_found("--disk", &self.image))?;
        if image.is_dir() {
            return Err(OptionsError::DiskIsDirectory(image));
        }
        Ok(Disk {
            image,
            read_only: self.read_only,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_is_a_suffix() {
        let disk = |text: &str| DiskOption::from(OsString::from(text));
        assert_eq!(
            disk("a,b"),
            DiskOption {
                image: "a,b".into(),
                read_only: false
            }
        );
        assert_eq!(
            disk("a,b,ro"),
            DiskOption {
                image: "a,b".into(),
                read_only: true
            }
        );
    }
}

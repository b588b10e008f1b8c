//! One disk, as `--disk key=value,...` or `ctl add` describes it.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vhost_daemon::key_values::{self, KeyValueError, Keys};
use vhost_daemon::listen::Endpoint;
use vhost_daemon::options::inherited;

use super::{MAX_QUEUES, OptionsError};
use crate::request::{SECTOR, Serial};
use crate::storage::qcow2::BackingFiles;
use crate::storage::{Format, RawOptions};

/// A disk as typed: the keys of `--disk` and of the control socket's `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DiskSpec {
    /// Disk image or block device.
    pub path: Option<PathBuf>,
    /// The image's format.
    pub format: Option<Format>,
    /// Which backing files a qcow2 image may have; by default those near it.
    pub backing: Option<BackingFiles>,
    /// Instead of `path`: a disk of so many bytes that forgets what is written.
    pub null: Option<u64>,
    /// Unix socket to listen on for front ends.
    pub socket: Option<PathBuf>,
    /// Instead of `socket`: an inherited one.
    pub fd: Option<i32>,
    /// What the control socket, the log and the metrics call the disk.
    pub name: Option<String>,
    /// Serial number the guest sees.
    pub serial: Option<String>,
    /// Number of queues offered.
    pub queues: Option<usize>,
    /// Logical block size the guest sees.
    pub block_size: Option<u32>,
    /// Refuse writes.
    pub read_only: bool,
    /// Go around the host's page cache.
    pub direct: bool,
    /// Whether a discard gives space back to the host; it does by default.
    pub discard: Option<bool>,
}

/// `key=value,...` that is no disk.
pub type NotADisk = KeyValueError;

/// The disk that `--disk` names: a comma within a value is written twice.
impl FromStr for DiskSpec {
    type Err = NotADisk;

    fn from_str(text: &str) -> Result<Self, NotADisk> {
        key_values::parse(
            text,
            Keys {
                switches: &["read-only", "direct", "discard"],
                numbers: &["null", "fd", "queues", "block-size"],
                number_lists: &[],
            },
        )
    }
}

/// A disk as validated.
#[derive(Debug)]
pub struct DiskConfig {
    /// What the control socket, the log and the metrics call it: also good as a file's name.
    pub name: String,
    /// What it is made of.
    pub medium: Medium,
    /// Where its front ends come from.
    pub endpoint: Endpoint,
    /// Logical block size the guest sees, if it was asked for.
    pub block_size: Option<u32>,
    /// Serial number the guest sees.
    pub serial: Serial,
    /// Number of queues.
    pub queues: usize,
}

/// What a disk is made of.
#[derive(Debug)]
pub enum Medium {
    /// A raw image or a block device.
    Raw(PathBuf, RawOptions),
    /// A qcow2 image, and which backing files it may have.
    Qcow2(PathBuf, RawOptions, BackingFiles),
    /// Nothing, of this many bytes.
    Null(u64),
}

impl Medium {
    /// The image's path.
    pub fn source(&self) -> String {
        match self {
            Self::Raw(path, _) | Self::Qcow2(path, ..) => path.to_string_lossy().into(),
            Self::Null(_) => "null".to_owned(),
        }
    }

    /// The image's file name.
    fn file_name(&self) -> String {
        match self {
            Self::Raw(path, _) | Self::Qcow2(path, ..) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            Self::Null(_) => "null".to_owned(),
        }
    }
}

impl DiskSpec {
    /// Checks the description and takes over an inherited descriptor.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<DiskConfig, OptionsError> {
        let endpoint = match (&self.socket, self.fd) {
            (Some(_), Some(_)) => return Err(OptionsError::SocketAndFd),
            (Some(path), None) => Some(Endpoint::Path(path.clone())),
            (None, Some(fd)) => Some(inherited(fd)?),
            (None, None) => None,
        };
        self.at(endpoint.ok_or(OptionsError::NoSocket)?)
    }

    /// Checks the description of a disk for front ends that come from `endpoint`.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn at(self, endpoint: Endpoint) -> Result<DiskConfig, OptionsError> {
        let medium = self.medium()?;
        let serial = match &self.serial {
            Some(text) => Serial::new(text).ok_or_else(|| OptionsError::Serial(text.clone()))?,
            None => Serial::truncated(&medium.file_name()),
        };
        let name = match self.name {
            Some(name) if is_name(&name) => name,
            Some(name) => return Err(OptionsError::Name(name)),
            None => default_name(self.serial.unwrap_or_else(|| medium.file_name())),
        };
        let queues = self.queues.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(16))
        });
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(OptionsError::Queues(queues));
        }
        if let Some(bytes) = self.block_size
            && !matches!(bytes, 512 | 4096)
        {
            return Err(OptionsError::BlockSize(bytes));
        }
        Ok(DiskConfig {
            name,
            medium,
            endpoint,
            block_size: self.block_size,
            serial,
            queues,
        })
    }

    fn medium(&self) -> Result<Medium, OptionsError> {
        let raw = RawOptions {
            read_only: self.read_only,
            direct: self.direct,
            discard: self.discard.unwrap_or(true),
        };
        match (&self.path, self.null) {
            (Some(_), Some(_)) => Err(OptionsError::ImageAndNull),
            (Some(image), None) => {
                let format = match self.format {
                    Some(format) => format,
                    None => Format::unnamed(image)?,
                };
                let backing = self.backing.unwrap_or(BackingFiles::Near);
                Ok(match format {
                    Format::Raw => Medium::Raw(image.clone(), raw),
                    Format::Qcow2 => Medium::Qcow2(image.clone(), raw, backing),
                })
            }
            (None, Some(bytes)) if bytes >= SECTOR => Ok(Medium::Null(bytes - bytes % SECTOR)),
            (None, Some(bytes)) => Err(OptionsError::TooSmall(bytes)),
            (None, None) => Err(OptionsError::NoImage),
        }
    }
}

const MAX_NAME: usize = 64;

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-')
}

/// Names become file names, labels and arguments.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(is_plain)
        && !name.starts_with(['.', '-'])
}

/// A name made of the serial number or the image's file name.
fn default_name(from: String) -> String {
    if is_name(&from) {
        return from;
    }
    let plain = |letter| if is_plain(letter) { letter } else { '_' };
    let name: String = from.chars().map(plain).take(MAX_NAME).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "disk" } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(text: &str) -> Result<DiskSpec, String> {
        text.parse::<DiskSpec>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_disk_reads_as_documented() {
        let disk =
            spec("path=/a,,b/c=d.img,socket=/s,serial=x y,queues=4,block-size=4096,direct=on");
        let expected = DiskSpec {
            path: Some("/a,b/c=d.img".into()),
            socket: Some("/s".into()),
            serial: Some("x y".into()),
            queues: Some(4),
            block_size: Some(4096),
            direct: true,
            ..DiskSpec::default()
        };
        assert_eq!(disk, Ok(expected.clone()));
        let config = expected.validate().unwrap();
        assert_eq!((config.name.as_str(), config.queues), ("x_y", 4));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("path", "'path' is not of the form key=value"),
            ("path=a,path=b", "'path' is given twice"),
            ("direct=yes", "direct is 'on' or 'off'"),
            ("queues=many", "queues is a number"),
            ("colour=red", "unknown field `colour`"),
            ("format=vmdk", "unknown variant `vmdk`"),
            ("backing=far", "unknown variant `far`"),
            ("fd=99999999999", "invalid value"),
            ("", "'' is not of the form key=value"),
        ] {
            let error = spec(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for (text, said) in [
            ("path=a", "socket="),
            ("socket=a", "path="),
            ("path=a,null=512,socket=a", "not both"),
            ("null=511,socket=a", "one sector"),
            ("path=a,socket=a,queues=65", "between 1 and 64"),
            ("path=a,socket=a,name=../x", "'../x'"),
            ("path=a,socket=a,block-size=1024", "512 or 4096"),
            ("path=a,socket=a,serial=123456789012345678901", "20 bytes"),
        ] {
            let error = spec(text).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_disk_or_refused(text in ".{0,200}") {
            let _ = spec(&text);
        }

        #[test]
        fn every_default_name_is_a_name(from in ".{0,100}") {
            prop_assert!(is_name(&default_name(from)));
        }
    }
}

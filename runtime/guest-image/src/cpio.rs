//! Writes initramfs archives.
//!
//! The format is "newc" as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
//! gives it. Archives may be written one after another: the kernel unpacks them in order.

use crate::Error;

/// File type bits of `c_mode`.
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const SYMLINK: u32 = 0o120_000;

/// Collects an archive in memory.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// An archive with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Parents come first.
    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.header(path, DIRECTORY | permissions, 0, (0, 0));
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When it is larger than the format can say.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<(), Error> {
        let size = u32::try_from(content.len()).map_err(|_| Error::TooLarge {
            name: path.to_owned(),
        })?;
        self.header(path, REGULAR | permissions, size, (0, 0));
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the target is longer than the format can say.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        let size = u32::try_from(target.len()).map_err(|_| Error::TooLarge {
            name: path.to_owned(),
        })?;
        self.header(path, SYMLINK | 0o777, size, (0, 0));
        self.bytes.extend_from_slice(target.as_bytes());
        self.pad();
        Ok(())
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.header(path, CHARACTER_DEVICE | permissions, 0, (major, minor));
    }

    /// Ends the archive and returns it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0, (0, 0));
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, size: u32, device: (u32, u32)) {
        let name = path.trim_start_matches('/');
        self.inodes += 1;
        let links = 1;
        // The name's length counts its zero byte; no path of ours comes near u32::MAX.
        let name_size = u32::try_from(name.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let fields = [
            self.inodes,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime: none, so that equal content makes equal archives
            size,
            0, // device the file was on, major and minor
            0,
            device.0,
            device.1,
            name_size,
            0, // checksum: unused in newc
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_follow_the_format() {
        let mut archive = Archive::new();
        archive.file("/init", 0o755, b"abc").unwrap();
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("0707010000000100"), "{text}");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"00000003");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(&bytes[116..120], b"abc\0");
        assert_eq!(&bytes[120..126], b"070701");
    }

    proptest! {
        #[test]
        fn archives_stay_aligned(files in prop::collection::vec(("[a-z]{1,40}", any::<Vec<u8>>()), 0..8)) {
            let mut archive = Archive::new();
            for (name, content) in &files {
                archive.file(name, 0o644, content).unwrap();
                prop_assert_eq!(archive.bytes.len() % 4, 0);
            }
            let total: usize = files.iter().map(|(_, content)| content.len()).sum();
            prop_assert!(archive.finish().len() >= total + 110 * (files.len() + 1));
        }
    }

    #[test]
    fn busybox_unpacks_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::new();
        archive.directory("/dir", 0o750);
        archive.file("/dir/file", 0o640, &[1, 2, 3, 4, 5]).unwrap();
        archive.symlink("/dir/link", "file").unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, archive.finish()).unwrap();
        let status = Command::new("busybox")
            .args(["cpio", "-i", "-d"])
            .current_dir(dir.path())
            .stdin(std::fs::File::open(&path).unwrap())
            .stderr(Stdio::null())
            .status()
            .expect("busybox is needed for this test: apt-get install busybox-static");
        assert!(status.success());
        assert_eq!(
            std::fs::read(dir.path().join("dir/link")).unwrap(),
            [1, 2, 3, 4, 5]
        );
    }
}

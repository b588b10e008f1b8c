//! What is shared: one directory for all file systems, and one image of it for each disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::error::Error;
use super::load::SMALL_FILES;
use super::options::DocumentsConfig;

const BLOCK: usize = 4096;
/// nginx's page: as large as Debian's own.
const PAGE: [u8; 612] = [b'p'; 612];

/// The files; they go with the value.
#[derive(Debug)]
pub(super) struct Ground {
    dir: TempDir,
    image_mib: u64,
}

impl Ground {
    pub(super) fn new(config: &DocumentsConfig) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("documents-")
            .tempdir_in(&config.tmpfs)
            .map_err(|source| Error::Write(config.tmpfs.clone(), source))?;
        let data_mib: u64 = if config.smoke { 8 } else { 128 };
        let dd_mib = (config.measure.blocks * BLOCK as u64).div_ceil(1 << 20);
        let ground = Self {
            dir,
            // Twice dd's: it reads one file and writes another; the rest is ext4's own.
            image_mib: data_mib + 2 * dd_mib + 48,
        };
        let shared = ground.shared();
        let make = |name: &str| {
            let path = shared.join(name);
            fs::create_dir_all(&path).map_err(|source| Error::Write(path, source))
        };
        make("small")?;
        write(&shared.join("data"), data_mib << 20)?;
        write(&shared.join("in"), dd_mib << 20)?;
        write(&shared.join("out"), dd_mib << 20)?;
        for number in 0..SMALL_FILES {
            write(&shared.join(format!("small/{number}")), BLOCK as u64)?;
        }
        let page = shared.join("index.html");
        fs::write(&page, PAGE).map_err(|source| Error::Write(page, source))?;
        Ok(ground)
    }

    /// The directory.
    pub(super) fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    /// A path for a socket.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    /// Of an image, in KiB.
    pub(super) fn image_kib(&self) -> u64 {
        self.image_mib << 10
    }

    /// An ext4 image of the directory.
    pub(super) fn image(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.dir.path().join(name);
        let mut make = Command::new(lab::need::program("mkfs.ext4")?);
        make.args(["-q", "-F", "-d"]).arg(self.shared()).arg(&path);
        let output = make.arg(format!("{}M", self.image_mib)).output();
        let output = output.map_err(|source| Error::Write(path.clone(), source))?;
        match output.status.success() {
            true => Ok(path),
            false => Err(Error::Tool {
                program: "mkfs.ext4",
                said: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }
}

/// Not zeros: nobody may leave them out.
fn write(path: &Path, bytes: u64) -> Result<(), Error> {
    let failed = |source| Error::Write(path.to_owned(), source);
    let mut file = File::create(path).map_err(failed)?;
    let block = [0x5a_u8; BLOCK];
    for _ in 0..bytes.div_ceil(BLOCK as u64) {
        file.write_all(&block).map_err(failed)?;
    }
    Ok(())
}

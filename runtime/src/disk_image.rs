//! Makes ext4 images out of directories.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use guest_image::Cache;
use tempfile::{NamedTempFile, TempPath};

use crate::options::{ByteSize, ImageOptions};
use crate::run::prepare::unless_interrupted;
use crate::run::signals;
use crate::sys::spawn::spawn_bound;

/// Room for ext4's own tables and its journal.
const BASE: u64 = 64 << 20;
/// mkfs gives every file at least an inode and a block.
const PER_FILE: u64 = 4096 + 256;
const ALIGNMENT: u64 = 1 << 20;
/// How the names of drafts begin; the id of the process that makes them follows.
const DRAFT: &str = ".ringside-image-";

/// Why no image could be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a directory.
    #[error("{0} is no directory")]
    NotDirectory(PathBuf),
    /// mkfs.ext4 is missing.
    #[error("cannot start mkfs.ext4 (apt-get install e2fsprogs)")]
    NoMkfs(#[source] io::Error),
    /// mkfs.ext4 failed.
    #[error("mkfs.ext4 could not put {from} into {size} bytes: {message}")]
    Mkfs {
        /// The directory.
        from: PathBuf,
        /// The image's size.
        size: u64,
        /// Its own words.
        message: String,
    },
    /// No place for a temporary image.
    #[error(transparent)]
    Cache(#[from] guest_image::Error),
}

/// Carries out `ringside image build`.
///
/// # Errors
/// As [`build`], or [`Interrupted`](crate::run::Interrupted) by a signal.
pub fn command(options: &ImageOptions) -> anyhow::Result<u8> {
    let mut signals = signals::watch()?;
    let draft = Draft::beside(&options.out)?;
    let filling = draft.filling(&options.from, options.size)?;
    let size = unless_interrupted(&mut signals, || filling.run())??;
    draft.replace(&options.out)?;
    let (out, from) = (options.out.display(), options.from.display());
    // The image is there, whether somebody reads this or not.
    let _ = writeln!(io::stderr(), "ringside: {out} holds {from} in {size}");
    Ok(0)
}

/// Makes `out` an ext4 image with the content of `from`, and returns its size. The file is sparse,
/// and appears under its name only when it is complete.
///
/// # Errors
/// When `from` cannot be read, mkfs.ext4 fails, or `out` cannot be written.
pub fn build(from: &Path, out: &Path, size: Option<ByteSize>) -> Result<ByteSize, ImageError> {
    let draft = Draft::beside(out)?;
    let size = draft.filling(from, size)?.run()?;
    draft.replace(out)?;
    Ok(size)
}

/// An image without its name yet, removed when dropped.
#[derive(Debug)]
pub(crate) struct Draft(NamedTempFile);

impl Draft {
    /// In the folder of `out`.
    pub(crate) fn beside(out: &Path) -> Result<Self, ImageError> {
        let absolute = std::path::absolute(out).map_err(failed("find", out))?;
        Self::in_folder(absolute.parent().unwrap_or(Path::new("/")))
    }

    /// In the cache directory.
    pub(crate) fn in_cache() -> Result<Self, ImageError> {
        Self::in_folder(&Cache::open_default()?.path(""))
    }

    fn in_folder(folder: &Path) -> Result<Self, ImageError> {
        remove_abandoned(folder);
        let draft = tempfile::Builder::new()
            .prefix(&format!("{DRAFT}{}-", std::process::id()))
            .tempfile_in(folder)
            .map_err(failed("write in", folder))?;
        Ok(Self(draft))
    }

    /// The work that makes it hold `from`, for any thread.
    pub(crate) fn filling(
        &self,
        from: &Path,
        size: Option<ByteSize>,
    ) -> Result<Filling, ImageError> {
        let path = self.0.path();
        Ok(Filling {
            from: from.to_owned(),
            size,
            file: self.0.reopen().map_err(failed("open", path))?,
            path: path.to_owned(),
        })
    }

    /// Gives it its name, in the place of what has it now.
    fn replace(self, out: &Path) -> Result<(), ImageError> {
        let persisted = self.0.persist(out);
        persisted.map(drop).map_err(|error| moved(out, error.error))
    }

    /// Gives it its name unless another run was quicker: a guest may use that image already.
    pub(crate) fn keep_older(self, out: &Path) -> Result<(), ImageError> {
        match self.0.persist_noclobber(out) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                Err(moved(out, error.error))
            }
            _ => Ok(()),
        }
    }

    /// It stays without a name of its own, and goes when dropped.
    pub(crate) fn into_temporary(self) -> TempPath {
        self.0.into_temp_path()
    }
}

fn moved(out: &Path, source: io::Error) -> ImageError {
    failed("move the image to", out)(source)
}

/// Removes drafts of killed processes. What cannot be removed now is tried again next time.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(DRAFT));
        let maker = maker.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Fills a draft.
#[derive(Debug)]
pub(crate) struct Filling {
    from: PathBuf,
    size: Option<ByteSize>,
    file: File,
    path: PathBuf,
}

impl Filling {
    /// Returns the image's size.
    pub(crate) fn run(self) -> Result<ByteSize, ImageError> {
        if !self.from.is_dir() {
            return Err(ImageError::NotDirectory(self.from));
        }
        let size = match self.size {
            Some(ByteSize(bytes)) => bytes,
            None => size_for(&self.from)?,
        };
        self.file
            .set_len(size)
            .map_err(failed("size", &self.path))?;
        self.make_file_system(size)?;
        Ok(ByteSize(size))
    }

    fn make_file_system(&self, size: u64) -> Result<(), ImageError> {
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-m", "0", "-E", "root_owner=0:0", "-d"])
            .arg(&self.from)
            .arg(&self.path)
            .env("LC_ALL", "C")
            // Debian keeps mkfs where an ordinary user's PATH does not look.
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let output = spawn_bound(mkfs, &[])
            .and_then(Child::wait_with_output)
            .map_err(ImageError::NoMkfs)?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr)
                .trim()
                .replace('\n', "; ");
            return Err(ImageError::Mkfs {
                from: self.from.clone(),
                size,
                message,
            });
        }
        self.file
            .sync_all()
            .map_err(failed("write back", &self.path))
    }
}

/// `PATH` with the folders of system programs at its end.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// What the directory holds, half as much again, and ext4's own needs.
fn size_for(from: &Path) -> Result<u64, ImageError> {
    let mut links = HashSet::new();
    let used = tree_size(from, &mut links)?;
    Ok((used + used / 2 + BASE).next_multiple_of(ALIGNMENT))
}

fn tree_size(directory: &Path, links: &mut HashSet<(u64, u64)>) -> Result<u64, ImageError> {
    let mut total = PER_FILE;
    for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
        let path = entry.map_err(failed("list", directory))?.path();
        let metadata = path.symlink_metadata().map_err(failed("read", &path))?;
        if metadata.is_dir() {
            total += tree_size(&path, links)?;
        } else if metadata.nlink() == 1 || links.insert((metadata.dev(), metadata.ino())) {
            total += PER_FILE + metadata.blocks() * 512;
        }
    }
    Ok(total)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    move |source| ImageError::File {
        action,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        fs::write(dir.path().join("folder/file"), vec![1; 3 << 20]).unwrap();
        fs::hard_link(dir.path().join("folder/file"), dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn hard_links_count_once() {
        let dir = tree();
        let used = tree_size(dir.path(), &mut HashSet::new()).unwrap();
        assert!((3 << 20..4 << 20).contains(&used), "{used}");
    }

    #[test]
    fn an_image_is_sparse_and_sound() {
        let dir = tree();
        let out = tempfile::tempdir().unwrap();
        let image = out.path().join("image");
        let size = build(dir.path(), &image, None).unwrap();
        let metadata = fs::metadata(&image).unwrap();
        assert_eq!(metadata.len(), size.0);
        assert!(metadata.blocks() * 512 < size.0 / 2);
        let mut fsck = Command::new("fsck.ext4");
        let check = fsck
            .arg("-fn")
            .arg(&image)
            .env("PATH", search_path())
            .output()
            .unwrap();
        assert!(
            check.status.success(),
            "{}",
            String::from_utf8_lossy(&check.stdout)
        );
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    }

    #[test]
    fn too_small_is_said_and_leaves_nothing() {
        let dir = tree();
        let out = tempfile::tempdir().unwrap();
        let error = build(
            dir.path(),
            &out.path().join("image"),
            Some(ByteSize(1 << 20)),
        );
        assert!(error.unwrap_err().to_string().contains("1048576 bytes"));
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }

    #[test]
    fn drafts_of_the_dead_go() {
        let out = tempfile::tempdir().unwrap();
        // Above the largest id a Linux process can have.
        let dead = out.path().join(".ringside-image-99999999-abc");
        fs::write(&dead, "half").unwrap();
        let draft = Draft::in_folder(out.path()).unwrap();
        remove_abandoned(out.path());
        assert!(!dead.exists() && draft.0.path().exists());
    }

    #[test]
    fn an_image_that_came_first_stays() {
        let out = tempfile::tempdir().unwrap();
        let image = out.path().join("image");
        let draft = Draft::beside(&image).unwrap();
        fs::write(&image, "older").unwrap();
        draft.keep_older(&image).unwrap();
        assert_eq!(fs::read_to_string(&image).unwrap(), "older");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_no_directory() {
        assert!(matches!(
            build("/etc/passwd".as_ref(), "/tmp/x".as_ref(), None),
            Err(ImageError::NotDirectory(_))
        ));
    }
}

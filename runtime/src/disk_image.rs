//! Makes ext4 images out of directories.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_image::Cache;
use tempfile::{NamedTempFile, TempPath};

use crate::options::{ByteSize, ImageOptions};

/// Room for ext4's own tables and its journal.
const BASE: u64 = 64 << 20;
/// mkfs gives every file at least an inode and a block.
const PER_FILE: u64 = 4096 + 256;
const ALIGNMENT: u64 = 1 << 20;

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
/// As [`build`].
pub fn command(options: &ImageOptions) -> anyhow::Result<u8> {
    let size = build(&options.from, &options.out, options.size)?;
    eprintln!(
        "ringside: {} holds {} in {size}",
        options.out.display(),
        options.from.display()
    );
    Ok(0)
}

/// Makes `out` an ext4 image with the content of `from`, and returns its size. The file is sparse,
/// and appears under its name only when it is complete.
///
/// # Errors
/// When `from` cannot be read, mkfs.ext4 fails, or `out` cannot be written.
pub fn build(from: &Path, out: &Path, size: Option<ByteSize>) -> Result<ByteSize, ImageError> {
    let absolute = std::path::absolute(out).map_err(failed("find", out))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let (draft, size) = draft(from, folder, size)?;
    draft.persist(out).map_err(|error| ImageError::File {
        action: "move the image to",
        path: out.into(),
        source: error.error,
    })?;
    Ok(size)
}

/// Makes an image for one run, in the cache directory, removed when dropped.
///
/// # Errors
/// As [`build`].
pub fn temporary(from: &Path) -> Result<TempPath, ImageError> {
    let cache = Cache::open_default()?;
    Ok(draft(from, &cache.path(""), None)?.0.into_temp_path())
}

fn draft(
    from: &Path,
    folder: &Path,
    size: Option<ByteSize>,
) -> Result<(NamedTempFile, ByteSize), ImageError> {
    if !from.is_dir() {
        return Err(ImageError::NotDirectory(from.into()));
    }
    let size = match size {
        Some(ByteSize(bytes)) => bytes,
        None => size_for(from)?,
    };
    let draft = tempfile::Builder::new()
        .prefix(".ringside-image-")
        .tempfile_in(folder)
        .map_err(failed("write in", folder))?;
    draft
        .as_file()
        .set_len(size)
        .map_err(failed("size", draft.path()))?;
    make_file_system(from, draft.as_file(), draft.path(), size)?;
    Ok((draft, ByteSize(size)))
}

fn make_file_system(from: &Path, image: &File, path: &Path, size: u64) -> Result<(), ImageError> {
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-E", "root_owner=0:0", "-d"])
        .arg(from)
        .arg(path)
        .env("LC_ALL", "C")
        // Debian keeps mkfs where an ordinary user's PATH does not look.
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .map_err(ImageError::NoMkfs)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; ");
        return Err(ImageError::Mkfs {
            from: from.into(),
            size,
            message,
        });
    }
    image.sync_all().map_err(failed("write back", path))
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
    fn a_file_is_no_directory() {
        assert!(matches!(
            build("/etc/passwd".as_ref(), "/tmp/x".as_ref(), None),
            Err(ImageError::NotDirectory(_))
        ));
    }
}

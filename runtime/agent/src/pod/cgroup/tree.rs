//! Removes a tree of cgroups, whose depth and width a container chose.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How often one that does not go yet is tried again.
const PAUSE: Duration = Duration::from_millis(1);

/// Removes all cgroups below `root`, the innermost first; without a `root` there are none. One descriptor is open
/// at a time, and no path is ever built: it could be longer than a path may be.
///
/// # Errors
/// When one cannot be removed for `patience`.
pub(super) fn remove_below(root: &Path, patience: Duration) -> io::Result<()> {
    let mut directory = match openat(CWD, root, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut depth = 0_u64;
    let mut stuck_since = None;
    loop {
        let sweep = sweep(&directory)?;
        if sweep.removed {
            stuck_since = None;
        }
        match sweep.full {
            Some(name) => match openat(&directory, &name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => {
                    directory = opened?;
                    depth += 1;
                }
            },
            None if depth == 0 => return Ok(()),
            None => {
                // It was entered because it could not be removed, and there was nothing in it.
                if !sweep.removed {
                    wait(&mut stuck_since, patience)?;
                }
                directory = parent(&directory)?;
                depth -= 1;
            }
        }
    }
}

/// What became of the cgroups in one.
struct Sweep {
    /// Some are gone.
    removed: bool,
    /// This one is not: others may be in it.
    full: Option<CString>,
}

/// Removes those in `directory`, up to the first that has others in it.
fn sweep(directory: &OwnedFd) -> io::Result<Sweep> {
    let mut removed = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) => removed = true,
            Err(Errno::NOENT) => {}
            Err(Errno::BUSY | Errno::NOTEMPTY) => {
                let full = Some(name.to_owned());
                return Ok(Sweep { removed, full });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Sweep {
        removed,
        full: None,
    })
}

fn parent(directory: impl AsFd) -> io::Result<OwnedFd> {
    Ok(openat(directory, c"..", DIRECTORY, Mode::empty())?)
}

fn wait(stuck_since: &mut Option<Instant>, patience: Duration) -> io::Result<()> {
    if stuck_since.get_or_insert_with(Instant::now).elapsed() > patience {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "something in it does not go",
        ));
    }
    std::thread::sleep(PAUSE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::mkdirat;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// A chain of directories longer than a path may be.
    fn chain(root: &Path, depth: usize) {
        let mut directory = openat(CWD, root, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&directory, "inner", Mode::RWXU).unwrap();
            directory = openat(&directory, "inner", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    fn wide(root: &Path) {
        for name in ["a/b/c", "a/d", "e/f", "g"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
    }

    fn directories_in(root: &Path) -> usize {
        let entries = fs::read_dir(root).unwrap().flatten();
        entries
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .count()
    }

    #[test]
    fn wide_and_deep_trees_go_and_their_root_stays() {
        let root = tempfile::tempdir().unwrap();
        wide(root.path());
        chain(root.path(), 2000);
        remove_below(root.path(), PATIENCE).unwrap();
        assert_eq!(directories_in(root.path()), 0);
        remove_below(&root.path().join("nothing"), PATIENCE).unwrap();
    }

    #[test]
    fn what_does_not_go_is_told_and_links_lead_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("precious")).unwrap();
        let root = tempfile::tempdir().unwrap();
        wide(root.path());
        std::os::unix::fs::symlink(outside.path(), root.path().join("a/b/link")).unwrap();
        let error = remove_below(root.path(), PATIENCE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(outside.path().join("precious").exists());
    }

    /// Where cgroup2 is mounted: alone, or beside version 1.
    fn cgroup2() -> &'static Path {
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|place| place.join("cgroup.procs").exists())
            .expect("no cgroup2 is mounted in /sys/fs/cgroup")
    }

    #[test]
    fn cgroups_go_with_those_inside() {
        lab::need::root().unwrap();
        let root = cgroup2().join(format!("ringside-test-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        wide(&root);
        let refused = fs::remove_dir(&root);
        remove_below(&root, PATIENCE).unwrap();
        fs::remove_dir(&root).unwrap();
        // What made all this necessary.
        assert!(refused.is_err());
    }
}

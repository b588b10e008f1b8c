//! The directory that a pod shares with its guest, and what is mounted in it.
//!
//! ```text
//! shared/CONTAINER/rootfs      the container's root file system
//! shared/CONTAINER/mounts/N    its Nth bind mount, a directory or a file
//! ```
//!
//! The owner has a mount namespace of its own ([`enter_mount_namespace`](crate::enter_mount_namespace)),
//! so the host sees none of this. The directory is a mount that passes further ones on: virtiofsd,
//! in a namespace that is a slave of this one, sees a container's when it comes. What the host
//! mounts later in a bind-mounted directory arrives, too.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};

use crate::PodError;
use crate::directory::is_name;

/// Where the guest has it.
pub const GUEST_DIRECTORY: &str = "/run/ringside/shared";

/// Its name as a virtio-fs device.
pub const TAG: &str = "shared";

const ROOTFS: &str = "rootfs";
const MOUNTS: &str = "mounts";

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// What is mounted: an absolute path of the host. Symbolic links are followed now.
    pub source: PathBuf,
    /// With what is mounted below it.
    pub recursive: bool,
    /// Nothing can be changed through it, whatever the guest does.
    pub read_only: bool,
}

/// The shared directory.
#[derive(Debug, Clone)]
pub struct Share {
    directory: PathBuf,
}

impl Share {
    /// Makes the directory, as a mount that passes mounts on.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn create(directory: PathBuf) -> Result<Self, PodError> {
        fs::create_dir(&directory).map_err(PodError::file("make", &directory))?;
        mount_bind(&directory, &directory)
            .and_then(|()| mount_change(&directory, MountPropagationFlags::PRIVATE))
            .and_then(|()| mount_change(&directory, MountPropagationFlags::SHARED))
            .map_err(|error| PodError::file("mount", &directory)(error.into()))?;
        Ok(Self { directory })
    }

    /// Its path on the host.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Mounts a container's root file system, if it is the host's, and the sources of its bind mounts, in order.
    /// [`rootfs`] and [`mount_point`] say where the guest has them. When something fails, nothing
    /// stays.
    ///
    /// # Errors
    /// When something cannot be mounted, naming its source.
    pub fn add(
        &self,
        container: &str,
        root: Option<&Bind>,
        binds: &[Bind],
    ) -> Result<(), PodError> {
        if !is_name(container) {
            return Err(PodError::Name(container.to_owned()));
        }
        let folder = self.directory.join(container);
        let mounts = folder.join(MOUNTS);
        fs::create_dir(&folder)
            .and_then(|()| fs::create_dir(&mounts))
            .map_err(PodError::file("make", &folder))?;
        let root = root.map_or(Ok(()), |root| bind(root, &folder.join(ROOTFS)));
        let mounted = root.and_then(|()| {
            let mut numbered = binds.iter().enumerate();
            numbered.try_for_each(|(index, it)| bind(it, &mounts.join(index.to_string())))
        });
        if mounted.is_err() {
            self.remove(container)?;
        }
        mounted
    }

    /// Unmounts what a container had, and removes its folder.
    ///
    /// # Errors
    /// When something stays mounted or cannot be removed.
    pub fn remove(&self, container: &str) -> Result<(), PodError> {
        if !is_name(container) {
            return Err(PodError::Name(container.to_owned()));
        }
        let folder = self.directory.join(container);
        unmount_below(&folder)?;
        let mounts = folder.join(MOUNTS);
        for path in [&mounts, &folder] {
            remove_empty(path).map_err(PodError::file("remove", path))?;
        }
        Ok(())
    }

    /// Unmounts and removes everything.
    ///
    /// # Errors
    /// When something stays mounted or cannot be removed.
    pub fn destroy(&self) -> Result<(), PodError> {
        unmount_below(&self.directory)?;
        let containers = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(PodError::file("read", &self.directory))?,
        };
        for container in containers.flatten() {
            if let Some(name) = container.file_name().to_str() {
                self.remove(name)?;
            }
        }
        fs::remove_dir(&self.directory).map_err(PodError::file("remove", &self.directory))
    }

    /// The directory of a pod whose owner is gone: for [`destroy`](Self::destroy).
    #[must_use]
    pub fn abandoned(directory: PathBuf) -> Self {
        Self { directory }
    }
}

/// Where the guest has a container's root file system.
#[must_use]
pub fn rootfs(container: &str) -> PathBuf {
    Path::new(GUEST_DIRECTORY).join(container).join(ROOTFS)
}

/// Where the guest has a container's bind mount.
#[must_use]
pub fn mount_point(container: &str, index: usize) -> PathBuf {
    Path::new(GUEST_DIRECTORY)
        .join(container)
        .join(MOUNTS)
        .join(index.to_string())
}

fn bind(what: &Bind, target: &Path) -> Result<(), PodError> {
    let kind = fs::metadata(&what.source).map_err(PodError::file("find", &what.source))?;
    let made = if kind.is_dir() {
        fs::create_dir(target)
    } else {
        File::create_new(target).map(drop)
    };
    made.map_err(PodError::file("make", target))?;
    let mounted = if what.recursive {
        mount_bind_recursive(&what.source, target)
    } else {
        mount_bind(&what.source, target)
    };
    mounted.map_err(|error| PodError::file("mount", &what.source)(error.into()))?;
    // Slave and shared: what the host mounts below arrives here and in virtiofsd, nothing goes back.
    let flags = [
        MountPropagationFlags::DOWNSTREAM,
        MountPropagationFlags::SHARED,
    ];
    for flag in flags {
        mount_change(target, flag | MountPropagationFlags::REC)
            .map_err(|error| PodError::file("mount", target)(error.into()))?;
    }
    if what.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY | locked_flags(target);
        mount_remount(target, flags, "")
            .map_err(|error| PodError::file("make read-only", &what.source)(error.into()))?;
    }
    Ok(())
}

/// Flags that a mount has and that a remount without them would take away or be refused for.
fn locked_flags(target: &Path) -> MountFlags {
    use rustix::fs::{StatVfsMountFlags as Has, statvfs};
    let has = statvfs(target).map_or(Has::empty(), |info| info.f_flag);
    let pairs = [
        (Has::NOSUID, MountFlags::NOSUID),
        (Has::NODEV, MountFlags::NODEV),
        (Has::NOEXEC, MountFlags::NOEXEC),
        (Has::NOATIME, MountFlags::NOATIME),
        (Has::NODIRATIME, MountFlags::NODIRATIME),
        (Has::RELATIME, MountFlags::RELATIME),
    ];
    let kept = pairs.into_iter().filter(|(is, _)| has.contains(*is));
    kept.fold(MountFlags::empty(), |all, (_, flag)| all | flag)
}

/// Unmounts everything at and below `path`, the latest first, and removes the mount points of a
/// container's folder. Whoever still has something open there keeps it until he closes it.
fn unmount_below(path: &Path) -> Result<(), PodError> {
    let mut points =
        mounted_below(path).map_err(PodError::file("read", "/proc/self/mountinfo".as_ref()))?;
    points.reverse();
    for point in points {
        match unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // It went with one that it was mounted in.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(PodError::file("unmount", &point)(error.into())),
        }
    }
    let left = mounted_below(path).unwrap_or_default();
    match left.first() {
        Some(point) => Err(PodError::file("unmount", point)(
            ErrorKind::ResourceBusy.into(),
        )),
        None => Ok(()),
    }
}

/// Mount points at and below `path`, in the order they were mounted.
fn mounted_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| {
        // The fifth field of proc_pid_mountinfo(5).
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        let point = unescape(field);
        point.starts_with(path).then_some(point)
    });
    Ok(points.collect())
}

/// A path of mountinfo, where blanks are written as \040 and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// Removes a folder of empty folders and empty files. Nothing with content is removed: it would not
/// be ours.
fn remove_empty(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else if entry.metadata()?.len() == 0 {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_mount_points_are_read() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(br"/a\9"), Path::new(r"/a\9"));
    }

    #[test]
    fn what_has_content_stays() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("precious"), "x").unwrap();
        assert!(remove_empty(root.path()).is_err());
        assert!(root.path().join("precious").exists());
    }

    #[test]
    fn containers_cannot_be_called_a_path() {
        let share = Share::abandoned("/nowhere".into());
        let root = Bind {
            source: "/".into(),
            recursive: false,
            read_only: true,
        };
        assert!(matches!(
            share.add("../x", Some(&root), &[]),
            Err(PodError::Name(_))
        ));
        assert!(matches!(share.remove(".."), Err(PodError::Name(_))));
    }
}

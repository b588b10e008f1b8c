//! Attributes of files and file systems.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::stat64;
use fuse_backend_rs::api::filesystem::{Context, SetattrValid};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};

use super::inode::Inode;
use super::leftovers::takes_long_to_free;
use super::open::require_regular;
use super::set_id::clearing_set_id;
use super::{Config, IdTranslation, Passthrough, errno};
use crate::fuse::abi::{Statx, StatxTime};
use crate::sys::{FileStatus, status_of};

/// What sets something.
const SETS: SetattrValid = SetattrValid::MODE
    .union(SetattrValid::UID)
    .union(SetattrValid::GID)
    .union(SetattrValid::SIZE)
    .union(SetattrValid::ATIME)
    .union(SetattrValid::MTIME);

/// How a size is changed.
#[derive(Clone, Copy, Debug)]
struct Resize {
    /// Clear set-id bits.
    kill: bool,
    /// Nobody waits for this thread.
    may_wait: bool,
}

impl Passthrough {
    /// Through the handle, where there is one: the file may have lost its name.
    pub(super) fn status(&self, inode: u64, handle: Option<u64>) -> io::Result<FileStatus> {
        match handle {
            Some(handle) => status_of(&*self.handles.any(inode, handle)?.file),
            None => status_of(&self.inodes.get(inode)?.fd()?),
        }
    }

    pub(super) fn extended_status(
        &self,
        inode: u64,
        handle: Option<u64>,
    ) -> io::Result<(Statx, Duration)> {
        let mut statx = statx_from(&self.status(inode, handle)?.raw);
        statx.uid = self.config.users.to_guest(statx.uid);
        statx.gid = self.config.groups.to_guest(statx.gid);
        Ok((statx, self.config.cache.timeout()))
    }

    /// Owner first: changing it clears set-id bits, which the mode then may set again.
    pub(super) fn change_attributes(
        &self,
        inode: u64,
        attributes: &stat64,
        handle: Option<u64>,
        valid: SetattrValid,
        may_wait: bool,
    ) -> io::Result<FileStatus> {
        self.writable()?;
        let node = self.inodes.get(inode)?;
        let file = handle
            .map(|handle| self.handles.any(inode, handle))
            .transpose()?
            .map(|h| h.file.clone());
        let resized = valid.contains(SetattrValid::SIZE) && node.kind == libc::S_IFREG;
        if resized && !may_wait && takes_long_to_free(&node.fd()?, attributes.st_size)? {
            return Err(errno(libc::EWOULDBLOCK));
        }
        // Nothing to set: that is how the guest's kernel says that the set-id bits are to go, for a
        // chown(2) that changes nothing. It does the same here.
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) || !valid.intersects(SETS) {
            self.change_owner(&node, attributes, valid)?;
        }
        if valid.contains(SetattrValid::MODE) {
            self.change_mode(&node, attributes.st_mode)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            let kill = valid.contains(SetattrValid::KILL_SUIDGID);
            let how = Resize { kill, may_wait };
            self.change_size(&node, file.as_ref(), attributes.st_size, how)?;
        }
        if valid.intersects(SetattrValid::ATIME | SetattrValid::MTIME) {
            change_times(&node, attributes, valid)?;
        }
        status_of(&node.fd()?)
    }

    fn change_owner(
        &self,
        node: &Inode,
        attributes: &stat64,
        valid: SetattrValid,
    ) -> io::Result<()> {
        // The highest number means "as it is" to chown(2); as an argument it is a mistake.
        let wanted = |flag, id: u32, ids: &IdTranslation| match (valid.contains(flag), id) {
            (true, u32::MAX) => Err(errno(libc::EINVAL)),
            (true, id) => ids.to_host(id).map(Some),
            (false, _) => Ok(None),
        };
        let Config { users, groups, .. } = &self.config;
        let owner = wanted(SetattrValid::UID, attributes.st_uid, users)?;
        let group = wanted(SetattrValid::GID, attributes.st_gid, groups)?;
        Ok(rustix::fs::chownat(
            &node.fd()?,
            c"",
            owner.map(Uid::from_raw),
            group.map(Gid::from_raw),
            AtFlags::EMPTY_PATH,
        )?)
    }

    fn change_mode(&self, node: &Inode, mode: u32) -> io::Result<()> {
        if node.kind == libc::S_IFLNK {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let fd = node.fd()?;
        let (descriptors, number) = self.descriptors.name(&fd);
        let mode = Mode::from_raw_mode(mode & 0o7777);
        Ok(rustix::fs::chmodat(
            descriptors,
            number.as_c_str(),
            mode,
            AtFlags::empty(),
        )?)
    }

    /// An access ACL was set by someone who is not of the file's group: as chmod(2) by them would,
    /// it clears the set-group-ID bit (`FUSE_SETXATTR_ACL_KILL_SGID`).
    pub(super) fn clear_set_group_id(&self, inode: u64) -> io::Result<()> {
        let node = self.inodes.get(inode)?;
        let mode = status_of(&node.fd()?)?.attributes.st_mode;
        if mode & libc::S_ISGID == 0 {
            return Ok(());
        }
        self.change_mode(&node, mode & !libc::S_ISGID)
    }

    fn change_size(
        &self,
        node: &Inode,
        open: Option<&Arc<File>>,
        size: i64,
        Resize { kill, may_wait }: Resize,
    ) -> io::Result<()> {
        require_regular(node)?;
        let size = u64::try_from(size).map_err(|_| errno(libc::EINVAL))?;
        let reopened;
        let file = match open {
            Some(file) => file,
            None => {
                let fd = self.reopen_leased(&node.fd()?, OFlags::WRONLY, may_wait)?;
                reopened = Arc::new(File::from(fd));
                &reopened
            }
        };
        let _fsetid = if kill { clearing_set_id(file)? } else { None };
        Ok(rustix::fs::ftruncate(file, size)?)
    }

    /// The guest's kernel checks permissions itself and does not ask; other front ends may.
    pub(super) fn check_access(&self, context: &Context, inode: u64, mask: u32) -> io::Result<()> {
        let attributes = self.shown(status_of(&self.inodes.get(inode)?.fd()?)?.attributes);
        let mode = attributes.st_mode;
        if mask & libc::W_OK.unsigned_abs() != 0 {
            self.writable()?;
        }
        let granted = if context.uid == 0 {
            // The superuser may all, but execute only what anyone may.
            if mode & 0o111 != 0 || mode & libc::S_IFMT == libc::S_IFDIR {
                7
            } else {
                6
            }
        } else if context.uid == attributes.st_uid {
            mode >> 6 & 7
        } else if context.gid == attributes.st_gid {
            mode >> 3 & 7
        } else {
            mode & 7
        };
        if mask & 7 & !granted == 0 {
            Ok(())
        } else {
            Err(errno(libc::EACCES))
        }
    }
}

fn change_times(node: &Inode, attributes: &stat64, valid: SetattrValid) -> io::Result<()> {
    let time = |set, now, tv_sec, tv_nsec: i64| {
        if valid.contains(now) {
            Ok(Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            })
        } else if !valid.contains(set) {
            Ok(Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            })
        } else if (0..1_000_000_000).contains(&tv_nsec) {
            Ok(Timespec { tv_sec, tv_nsec })
        } else {
            Err(errno(libc::EINVAL))
        }
    };
    let times = Timestamps {
        last_access: time(
            SetattrValid::ATIME,
            SetattrValid::ATIME_NOW,
            attributes.st_atime,
            attributes.st_atime_nsec,
        )?,
        last_modification: time(
            SetattrValid::MTIME,
            SetattrValid::MTIME_NOW,
            attributes.st_mtime,
            attributes.st_mtime_nsec,
        )?,
    };
    Ok(rustix::fs::utimensat(
        &node.fd()?,
        c"",
        &times,
        AtFlags::EMPTY_PATH,
    )?)
}

fn statx_from(raw: &rustix::fs::Statx) -> Statx {
    let time = |time: rustix::fs::StatxTimestamp| StatxTime {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
        reserved: 0,
    };
    Statx {
        mask: raw.stx_mask,
        blksize: raw.stx_blksize,
        attributes: raw.stx_attributes.bits(),
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        mode: raw.stx_mode,
        ino: raw.stx_ino,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        attributes_mask: raw.stx_attributes_mask.bits(),
        atime: time(raw.stx_atime),
        btime: time(raw.stx_btime),
        ctime: time(raw.stx_ctime),
        mtime: time(raw.stx_mtime),
        rdev_major: raw.stx_rdev_major,
        rdev_minor: raw.stx_rdev_minor,
        dev_major: raw.stx_dev_major,
        dev_minor: raw.stx_dev_minor,
        ..Default::default()
    }
}

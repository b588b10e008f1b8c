//! Opening files that are there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuse_backend_rs::api::filesystem::OpenOptions;
use rustix::fs::OFlags;

use super::config::CachePolicy;
use super::handles::{NewHandle, Opened};
use super::inode::Inode;
use super::leftovers::takes_long_to_free;
use super::set_id::clearing_set_id;
use super::{Passthrough, errno};
use crate::fuse::abi::OPEN_KILL_SUIDGID;
use crate::medium::Medium;

/// What a guest may ask for in open(2). Not in it: what creates or resolves names (done already),
/// `O_NONBLOCK` (it would fail reads instead of letting them wait), `O_DIRECT` (the guest
/// bypasses its own cache anyway, and its buffers are aligned to nothing the host promises; unless
/// it is asked for), `O_NOATIME` likewise, and `O_APPEND`: a guest's kernel writes pages back, and writes after `F_SETFL`, by the same handle at
/// an offset. Each write says whether it appends.
const GUESTS_FLAGS: OFlags = OFlags::RWMODE
    .union(OFlags::TRUNC)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC);

impl Passthrough {
    /// The flags to open with on the host for a guest's.
    pub(super) fn open_flags(&self, flags: u32) -> io::Result<OFlags> {
        let mut allowed = GUESTS_FLAGS;
        allowed.set(OFlags::DIRECT, self.config.direct_io);
        allowed.set(OFlags::NOATIME, self.config.preserve_noatime);
        let mut flags = OFlags::from_bits_retain(flags) & allowed;
        let mode = flags & OFlags::RWMODE;
        if mode == OFlags::RWMODE {
            return Err(errno(libc::EINVAL));
        }
        if mode != OFlags::RDONLY || flags.contains(OFlags::TRUNC) {
            self.writable()?;
        }
        // The guest's kernel fills pages before it writes parts of them.
        if self.writeback() && mode == OFlags::WRONLY {
            flags = flags.difference(OFlags::RWMODE) | OFlags::RDWR;
        }
        Ok(flags)
    }

    pub(super) fn open_file(
        &self,
        inode: u64,
        flags: u32,
        open_flags: u32,
        may_wait: bool,
    ) -> io::Result<(u64, OpenOptions)> {
        let node = self.inodes.get(inode)?;
        let flags = self.open_flags(flags)?;
        require_regular(&node)?;
        let counted = self.places.budget().handle()?;
        let truncates = flags.contains(OFlags::TRUNC);
        let kill = truncates && open_flags & OPEN_KILL_SUIDGID != 0;
        if truncates && !may_wait && takes_long_to_free(&node.fd()?, 0)? {
            return Err(errno(libc::EWOULDBLOCK));
        }
        let fd = {
            let _fsetid = if kill {
                clearing_set_id(&node.fd()?)?
            } else {
                None
            };
            self.reopen_leased(&node.fd()?, flags, may_wait)?
        };
        let mut options = self.config.cache.file_options();
        // Without the flag the guest's kernel drops what it has cached, also the pages of running
        // programs: each start of a program would read it all again.
        if self.config.cache == CachePolicy::Auto && node.last_opened.is_unchanged(&fd)? {
            options |= OpenOptions::KEEP_CACHE;
        }
        let medium = self.medium(&node, &fd, flags);
        let handle = self.handles.add(NewHandle {
            inode: node.id,
            fd,
            flags,
            medium,
            opened: Opened::File,
            counted,
        });
        Ok((handle, options))
    }

    /// Who moves the data of a file that was opened with `flags`.
    pub(super) fn medium(&self, node: &Inode, file: impl AsFd, flags: OFlags) -> Arc<Medium> {
        if flags.intersects(OFlags::DIRECT | OFlags::SYNC | OFlags::DSYNC) {
            self.media.waiting()
        } else {
            self.media.of(node.device(), file)
        }
    }

    /// Opens a regular file for reading or writing. Someone on the host may have a lease on it and is
    /// then asked to let go, which can take as long as /proc/sys/fs/lease-break-time says.
    ///
    /// # Errors
    /// `EWOULDBLOCK`: that is so, and the caller may not wait.
    pub(super) fn reopen_leased(
        &self,
        fd: impl AsFd,
        flags: OFlags,
        may_wait: bool,
    ) -> io::Result<OwnedFd> {
        if may_wait {
            return self.descriptors.reopen(fd, flags);
        }
        let fd = self.descriptors.reopen(fd, flags | OFlags::NONBLOCK)?;
        // Reads and writes are to wait for the disk as ever.
        rustix::fs::fcntl_setfl(&fd, flags)?;
        Ok(fd)
    }

    pub(super) fn open_directory(&self, inode: u64) -> io::Result<(u64, OpenOptions)> {
        let node = self.inodes.get(inode)?;
        let counted = self.places.budget().handle()?;
        let fd = self
            .descriptors
            .reopen(&node.fd()?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let handle = self.handles.add(NewHandle {
            inode: node.id,
            fd,
            flags: OFlags::RDONLY,
            medium: self.media.waiting(),
            opened: Opened::Directory(Default::default()),
            counted,
        });
        Ok((handle, self.config.cache.directory_options()))
    }
}

/// Device nodes, FIFOs and sockets are the guest's kernel's business. Opened here they would act
/// on the host.
pub(super) fn require_regular(node: &Inode) -> io::Result<()> {
    match node.kind {
        libc::S_IFREG => Ok(()),
        libc::S_IFDIR => Err(errno(libc::EISDIR)),
        libc::S_IFLNK => Err(errno(libc::ELOOP)),
        _ => Err(errno(libc::ENXIO)),
    }
}

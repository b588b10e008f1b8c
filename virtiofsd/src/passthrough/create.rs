//! Making new files, for the user who asks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fuse_backend_rs::api::filesystem::Entry;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::budget::Counted;
use super::handles::NewHandle;
use super::inode::Inode;
use super::named::At;
use super::names::{CONFINED, check_name};
use super::{Config, Passthrough, errno};
use crate::file_system::{Creator, NewNode, Opened};
use crate::fuse::abi::CreateIn;
use crate::sys::{CredentialsGuard, act_as, use_umask};

/// Permission bits of a new file: what is left is its type.
const PERMISSIONS: u32 = 0o7777;

impl Passthrough {
    /// Lets the calling thread create as `creator`. An unprivileged daemon creates as itself.
    fn act_as(&self, creator: &Creator) -> io::Result<Option<CredentialsGuard>> {
        let Config { users, groups, .. } = &self.config;
        let user = users.to_host(creator.context.uid)?;
        let group = groups.to_host(creator.context.gid)?;
        if !self.privileged {
            return Ok(None);
        }
        let member_of: io::Result<SmallVec<[u32; 4]>> = creator
            .groups
            .iter()
            .map(|group| groups.to_host(*group))
            .collect();
        act_as(user, group, &member_of?)
    }

    /// Makes something called `name` in `parent`, under the creator's credentials and umask, and
    /// looks it up.
    fn make(
        &self,
        creator: &Creator,
        (parent, name): (u64, &CStr),
        umask: u32,
        make: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> io::Result<Entry> {
        self.writable()?;
        check_name(name)?;
        let directory = self.inodes.get(parent)?;
        self.inodes.check_room()?;
        {
            // Opened before the capabilities go that this may need.
            let fd = directory.fd()?;
            use_umask(umask)?;
            let _credentials = self.act_as(creator)?;
            make(fd.as_fd())?;
        }
        let entry = self.look_up_in(&directory, name)?;
        if !creator.labels.is_empty() {
            let made = self.inodes.get(entry.inode)?;
            let at = (&directory.fd()?, name);
            if let Err(error) = self.label_or_remove(creator, &made.fd()?, at) {
                self.inodes.forget(entry.inode, 1);
                return Err(error);
            }
        }
        Ok(entry)
    }

    pub(super) fn make_directory(
        &self,
        creator: &Creator,
        at: (u64, &CStr),
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        let mode = Mode::from_raw_mode(mode & PERMISSIONS);
        self.make(creator, at, umask, |directory| {
            rustix::fs::mkdirat(directory, at.1, mode)
        })
    }

    pub(super) fn make_node(
        &self,
        creator: &Creator,
        at: (u64, &CStr),
        node: NewNode,
    ) -> io::Result<Entry> {
        let kind = FileType::from_raw_mode(node.mode);
        if matches!(
            kind,
            FileType::Directory | FileType::Symlink | FileType::Unknown
        ) {
            return Err(errno(libc::EINVAL));
        }
        let mode = Mode::from_raw_mode(node.mode & PERMISSIONS);
        // FUSE's 32 bits are the low half of the C library's dev_t.
        let device = node.rdev.into();
        self.make(creator, at, node.umask, |directory| {
            rustix::fs::mknodat(directory, at.1, kind, mode, device)
        })
    }

    pub(super) fn make_symlink(
        &self,
        creator: &Creator,
        at: (u64, &CStr),
        target: &CStr,
    ) -> io::Result<Entry> {
        self.make(creator, at, 0, |directory| {
            rustix::fs::symlinkat(target, directory, at.1)
        })
    }

    /// Creates and opens; a file that is there already is opened, unless the guest wants a new
    /// one (`O_EXCL`).
    pub(super) fn create_file(
        &self,
        creator: &Creator,
        (parent, name): (u64, &CStr),
        args: CreateIn,
    ) -> io::Result<Opened> {
        self.writable()?;
        check_name(name)?;
        let directory = self.inodes.get(parent)?;
        let flags = self.open_flags(args.flags)?;
        let counted = self.places.budget().handle()?;
        self.inodes.check_room()?;
        let exclusive = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(args.mode & PERMISSIONS);
        let above = directory.fd()?;
        let still = self.places.names().still();
        let created = {
            use_umask(args.umask)?;
            let _credentials = self.act_as(creator)?;
            rustix::fs::openat2(&above, name, exclusive, mode, CONFINED)
        };
        match created {
            Ok(fd) => {
                if !creator.labels.is_empty() {
                    self.label_or_remove(creator, &fd, (&above, name))?;
                }
                self.opened_new((fd, flags), counted, Some((&directory, name)))
            }
            Err(Errno::EXIST) if OFlags::from_bits_retain(args.flags).contains(OFlags::EXCL) => {
                Err(Errno::EXIST.into())
            }
            Err(Errno::EXIST) => {
                drop(still);
                self.open_existing(creator, &directory, name, args)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn open_existing(
        &self,
        creator: &Creator,
        directory: &Arc<Inode>,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<Opened> {
        let entry = self.look_up_in(directory, name)?;
        match self.open_file(entry.inode, args.flags, args.fuse_flags, creator.may_wait) {
            Ok((handle, options)) => Ok((entry, Some(handle), options, None)),
            Err(error) => {
                // The guest does not hear of this lookup.
                self.inodes.forget(entry.inode, 1);
                Err(error)
            }
        }
    }

    /// A file without a name; the guest may link it somewhere later.
    pub(super) fn create_unnamed(
        &self,
        creator: &Creator,
        parent: u64,
        args: CreateIn,
    ) -> io::Result<Opened> {
        self.writable()?;
        let directory = self.inodes.get(parent)?;
        let counted = self.places.budget().handle()?;
        self.inodes.check_room()?;
        let exclusive = OFlags::from_bits_retain(args.flags) & OFlags::EXCL;
        let flags = self.open_flags(args.flags)? | OFlags::TMPFILE | OFlags::CLOEXEC | exclusive;
        let mode = Mode::from_raw_mode(args.mode & PERMISSIONS);
        let fd = {
            let directory = directory.fd()?;
            use_umask(args.umask)?;
            let _credentials = self.act_as(creator)?;
            rustix::fs::openat(&directory, c".", flags, mode)?
        };
        self.label(creator, &fd)?;
        self.opened_new((fd, flags), counted, None)
    }

    /// The reply about a file that was created and opened just now, with the flags given.
    fn opened_new(
        &self,
        (fd, flags): (OwnedFd, OFlags),
        counted: Counted,
        at: Option<At<'_>>,
    ) -> io::Result<Opened> {
        let entry = self.entry_of(self.descriptors.reopen(&fd, OFlags::PATH)?, at)?;
        let node = self.inodes.get(entry.inode)?;
        if at.is_none() {
            self.hold(&node, &fd);
        }
        let medium = self.medium(&node, &fd, flags);
        let handle = self.handles.add(NewHandle {
            inode: node.id,
            fd,
            flags,
            medium,
            opened: super::handles::Opened::File,
            counted,
        });
        Ok((entry, Some(handle), self.config.cache.file_options(), None))
    }
}

//! What the server asks of a file system beyond fuse-backend-rs's `FileSystem`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::stat64;
use fuse_backend_rs::api::filesystem::{
    Context, Entry, FileSystem, FsOptions, OpenOptions, SetattrValid,
};
use smallvec::SmallVec;

use crate::fuse::Features;
use crate::fuse::abi::{CreateIn, Statx};
use crate::medium::HostFile;

/// Who asks, for instance for a new file.
#[derive(Clone, Debug)]
pub struct Creator {
    /// Owner and group it gets, and the process that asks.
    pub context: Context,
    /// Those of the owner's supplementary groups that matter (`FUSE_CREATE_SUPP_GROUP`).
    pub groups: SmallVec<[u32; 4]>,
    /// Security labels of a new file (`FUSE_SECURITY_CTX`).
    pub labels: Vec<Label>,
    /// Nobody else waits for the thread that serves this. If not, what would wait long is `EAGAIN`,
    /// and asked for again by a thread that may.
    pub may_wait: bool,
}

/// A security label: an extended attribute that a file has from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The attribute.
    pub name: CString,
    /// Its value.
    pub value: Vec<u8>,
}

impl Creator {
    /// One without supplementary groups, whose requests may wait.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            groups: SmallVec::new(),
            labels: Vec::new(),
            may_wait: true,
        }
    }
}

/// What an operation on an open file is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read its content.
    Read,
    /// Write its content; set-id bits go when `kill_privileges`.
    Write {
        /// `FUSE_WRITE_KILL_SUIDGID`.
        kill_privileges: bool,
    },
    /// Bring it to stable storage.
    Sync,
    /// Allocate or free its blocks; set-id bits go when `kill_privileges`.
    Allocate {
        /// The request does not say, so it is by who asks.
        kill_privileges: bool,
    },
}

impl Access {
    /// Allocating for whoever asks: only the superuser keeps a file's set-id bits.
    pub(crate) fn allocate(context: &Context) -> Self {
        Self::Allocate {
            kill_privileges: context.uid != 0,
        }
    }

    /// Whether the file is another one afterwards.
    pub(crate) fn changes(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Allocate { .. })
    }

    /// Whether set-id bits are to go with it.
    pub(crate) fn kills_privileges(self) -> bool {
        match self {
            Self::Write { kill_privileges } | Self::Allocate { kill_privileges } => kill_privileges,
            Self::Read | Self::Sync => false,
        }
    }
}

/// An entry, and a handle on it that is open.
pub type Opened = (Entry, Option<u64>, OpenOptions, Option<u32>);

/// A range of an open file.
#[derive(Clone, Copy, Debug)]
pub struct FileRange {
    /// The file's node.
    pub inode: u64,
    /// The open file.
    pub handle: u64,
    /// Where the range starts, in bytes.
    pub offset: u64,
}

/// What tells one file from another, for as long as it takes to ask twice. All zero stands for none.
pub type Trace = [u64; 4];

/// A file system that guests use through this daemon.
///
/// All methods have defaults, so that any `FileSystem` can be served by an empty implementation;
/// one that gives [`io_file`](Self::io_file) has its data moved straight between file and guest
/// memory.
pub trait GuestFileSystem: FileSystem<Inode = u64, Handle = u64> + Send + Sync + 'static {
    /// Chooses among the features that the guest's kernel offers.
    ///
    /// # Errors
    /// When the file system cannot serve this kernel.
    fn negotiate(&self, offered: Features) -> io::Result<Features> {
        let options = self.init(FsOptions::from_bits_truncate(offered.bits()))?;
        Ok(Features::from_bits(options.bits()) & offered)
    }

    /// The host's open file behind a handle, if `access` can go straight to it. `None`: the
    /// `FileSystem`'s method does the work.
    ///
    /// # Errors
    /// When there is no such handle.
    fn io_file(&self, inode: u64, handle: u64, access: Access) -> io::Result<Option<HostFile>> {
        let _ = (inode, handle, access);
        Ok(None)
    }

    /// Whether closing a file that was opened with `flags` may have something to say: if not, the
    /// guest's kernel does without `FLUSH`.
    fn flushes(&self, flags: u32) -> bool {
        let _ = flags;
        true
    }

    /// `FileSystem::open` for someone who may not wait: for a lease of the host's, or until what is
    /// truncated is freed.
    ///
    /// # Errors
    /// Any errno.
    fn open_as(
        &self,
        creator: &Creator,
        inode: u64,
        flags: u32,
        open_flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        self.open(&creator.context, inode, flags, open_flags)
    }

    /// `FileSystem::setattr` for someone who may not wait.
    ///
    /// # Errors
    /// Any errno.
    fn setattr_as(
        &self,
        creator: &Creator,
        inode: u64,
        attributes: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.setattr(&creator.context, inode, attributes, handle, valid)
    }

    /// Files that nobody uses any more and that take long to close. They pile up until the caller
    /// has a thread that may wait drop them.
    fn leftovers(&self) -> Vec<OwnedFd> {
        Vec::new()
    }

    /// `FileSystem::create` for a creator with groups.
    ///
    /// # Errors
    /// Any errno.
    fn create_as(
        &self,
        creator: &Creator,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<Opened> {
        self.create(&creator.context, parent, name, args)
    }

    /// `FileSystem::mkdir` for a creator with groups.
    ///
    /// # Errors
    /// Any errno.
    fn mkdir_as(
        &self,
        creator: &Creator,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.mkdir(&creator.context, parent, name, mode, umask)
    }

    /// `FileSystem::mknod` for a creator with groups.
    ///
    /// # Errors
    /// Any errno.
    fn mknod_as(
        &self,
        creator: &Creator,
        parent: u64,
        name: &CStr,
        node: NewNode,
    ) -> io::Result<Entry> {
        self.mknod(
            &creator.context,
            parent,
            name,
            node.mode,
            node.rdev,
            node.umask,
        )
    }

    /// `FileSystem::symlink` for a creator with groups.
    ///
    /// # Errors
    /// Any errno.
    fn symlink_as(
        &self,
        creator: &Creator,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.symlink(&creator.context, target, parent, name)
    }

    /// Makes and opens a file without a name in directory `parent` (`FUSE_TMPFILE`, 7.37).
    ///
    /// # Errors
    /// Any errno; `ENOSYS` makes the guest's kernel not ask again.
    fn tmpfile(&self, creator: &Creator, parent: u64, args: CreateIn) -> io::Result<Opened> {
        let _ = (creator, parent, args);
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// Sets an extended attribute; `kill_sgid` asks to clear the set-group-ID bit with it
    /// (`FUSE_SETXATTR_ACL_KILL_SGID`).
    ///
    /// # Errors
    /// Any errno.
    fn setxattr_and_mode(
        &self,
        context: &Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        (flags, kill_sgid): (u32, bool),
    ) -> io::Result<()> {
        let _ = kill_sgid;
        self.setxattr(context, inode, name, value, flags)
    }

    /// Copies up to `len` bytes between two open files (`FUSE_COPY_FILE_RANGE`); returns how many.
    ///
    /// # Errors
    /// Any errno; `ENOSYS` makes the guest's kernel copy by itself.
    fn copy_file_range(&self, from: FileRange, to: FileRange, len: u64) -> io::Result<u32> {
        let _ = (from, to, len);
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// Brings the whole file system that holds `inode` to stable storage (`FUSE_SYNCFS`, 7.34).
    ///
    /// # Errors
    /// Any errno; `ENOSYS` makes the guest's kernel not ask again.
    fn syncfs(&self, inode: u64) -> io::Result<()> {
        let _ = inode;
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// Whether a guest's nodes and open files can move to another daemon.
    fn can_move(&self) -> bool {
        false
    }

    /// What another daemon needs to go on with the guest, which has agreed on `features` if it has
    /// mounted. No queue runs meanwhile.
    ///
    /// # Errors
    /// Why the guest cannot move.
    fn save(&self, features: Option<Features>) -> io::Result<Vec<u8>> {
        let _ = features;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Goes on with a guest that another daemon has saved; what it has agreed on.
    ///
    /// # Errors
    /// Why the guest cannot go on here.
    fn load(&self, saved: &[u8]) -> io::Result<Option<Features>> {
        let _ = saved;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads a file that the guest has no handle for reading on, to see what is in it after a crash.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where that cannot be.
    fn read_back(&self, inode: u64, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let _ = (inode, offset, into);
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    /// Which file has a name; `None` if there is none, or it is not told.
    fn trace(&self, parent: u64, name: &CStr) -> Option<Trace> {
        let _ = (parent, name);
        None
    }

    /// Extended status (`FUSE_STATX`, 7.39), and how long it stays valid.
    ///
    /// # Errors
    /// Any errno; `ENOSYS` makes the guest's kernel use `getattr`.
    fn statx(&self, inode: u64, handle: Option<u64>) -> io::Result<(Statx, Duration)> {
        let _ = (inode, handle);
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

/// What mknod(2) makes.
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    /// Type and permissions, before the umask.
    pub mode: u32,
    /// Device, for device nodes.
    pub rdev: u32,
    /// Umask of the creating process.
    pub umask: u32,
}

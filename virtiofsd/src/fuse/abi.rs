//! Structures of the protocol, in the names of fuse-backend-rs, and those that it lacks.

pub use fuse_backend_rs::abi::fuse_abi::{
    AccessIn, Attr, AttrOut, BatchForgetIn, CopyFileRangeIn, CreateIn, Dirent, EntryOut,
    FallocateIn, FileLock, FlushIn, ForgetIn, ForgetOne, FsyncIn, GetattrIn, GetxattrIn,
    GetxattrOut, InHeader, InitIn, InitIn2, InitOut, InterruptIn, LinkIn, LkIn, LkOut, LseekIn,
    LseekOut, MkdirIn, MknodIn, OpenIn, OpenOut, OutHeader, ReadIn, ReleaseIn, Rename2In, RenameIn,
    SetattrIn, SetxattrIn, StatfsOut, WriteIn, WriteOut,
};

/// `FUSE_SETXATTR_ACL_KILL_SGID` in [`SetxattrInExt::setxattr_flags`]. 7.33.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1;

/// `FUSE_EXT_GROUPS` in [`ExtensionHeader::kind`]: supplementary groups. 7.38.
pub const EXTENSION_GROUPS: u32 = 32;

/// `FUSE_MAX_NR_SECCTX`: an [`ExtensionHeader::kind`] up to this is a number of security contexts.
/// 7.36.
pub const SECURITY_CONTEXTS_MAX: u32 = 31;

/// `struct fuse_secctx`: its name and value follow. 7.36.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SecurityContext {
    /// Bytes of value.
    pub size: u32,
    /// Unused.
    pub padding: u32,
}

/// `FUSE_OPEN_KILL_SUIDGID` in `fuse_open_in.open_flags`. 7.33.
pub const OPEN_KILL_SUIDGID: u32 = 1;

/// `FUSE_WRITE_KILL_SUIDGID` in `fuse_write_in.write_flags`. 7.31.
pub const WRITE_KILL_SUIDGID: u32 = 4;

/// `FOPEN_NOFLUSH` in `fuse_open_out.open_flags`: no `FLUSH` when it is closed. 7.35; older kernels
/// ignore it.
pub const FOPEN_NOFLUSH: u32 = 1 << 5;

/// `struct fuse_setxattr_in` with `FUSE_SETXATTR_EXT`. 7.33.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetxattrInExt {
    /// Bytes of value.
    pub size: u32,
    /// `XATTR_CREATE`, `XATTR_REPLACE`.
    pub flags: u32,
    /// `FUSE_SETXATTR_*`.
    pub setxattr_flags: u32,
    /// Unused.
    pub padding: u32,
}

/// `struct fuse_ext_header`: an extension after a request's arguments. 7.38.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtensionHeader {
    /// Bytes, this header included.
    pub size: u32,
    /// Up to 31: so many security contexts; [`EXTENSION_GROUPS`].
    pub kind: u32,
}

/// `struct fuse_statx_in`. 7.39.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StatxIn {
    /// `FUSE_GETATTR_FH`.
    pub getattr_flags: u32,
    /// Unused.
    pub reserved: u32,
    /// Handle, if the flag says so.
    pub fh: u64,
    /// `AT_STATX_*`.
    pub sx_flags: u32,
    /// `STATX_*`.
    pub sx_mask: u32,
}

/// `struct fuse_sx_time`. 7.39.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StatxTime {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanoseconds: u32,
    /// Unused.
    pub reserved: i32,
}

/// `struct fuse_statx`. 7.39.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Statx {
    /// Which fields are valid: `STATX_*`.
    pub mask: u32,
    /// Preferred size of I/O.
    pub blksize: u32,
    /// `STATX_ATTR_*`.
    pub attributes: u64,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permissions.
    pub mode: u16,
    /// Unused.
    pub spare0: u16,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Which of `attributes` the file system knows.
    pub attributes_mask: u64,
    /// Last access.
    pub atime: StatxTime,
    /// Creation.
    pub btime: StatxTime,
    /// Last change of status.
    pub ctime: StatxTime,
    /// Last change of content.
    pub mtime: StatxTime,
    /// Device that a device node stands for.
    pub rdev_major: u32,
    /// Likewise.
    pub rdev_minor: u32,
    /// Device of the file system.
    pub dev_major: u32,
    /// Likewise.
    pub dev_minor: u32,
    /// Unused.
    pub spare2: [u64; 14],
}

/// `struct fuse_statx_out`. 7.39.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StatxOut {
    /// Seconds the attributes stay valid.
    pub attr_valid: u64,
    /// Nanoseconds of the same.
    pub attr_valid_nsec: u32,
    /// Unused.
    pub flags: u32,
    /// Unused.
    pub spare: [u64; 2],
    /// The status.
    pub stat: Statx,
}

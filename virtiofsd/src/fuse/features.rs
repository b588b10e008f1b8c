//! What kernel and server agree on in `FUSE_INIT`.

use std::ops::{BitAnd, BitOr, BitOrAssign};

/// The `FUSE_INIT` flags: `flags` in the low, `flags2` (7.36) in the high 32 bits.
///
/// fuse-backend-rs's `FsOptions` drops the bits it does not know, so the server keeps its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal,)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
    };
}

features! {
    /// Several reads of one file at a time.
    ASYNC_READ = 0,
    /// `POSIX` locks go to the server.
    POSIX_LOCKS = 1,
    /// `O_TRUNC` comes with the open.
    ATOMIC_O_TRUNC = 3,
    /// Writes of more than a page.
    BIG_WRITES = 5,
    /// The server applies the umask.
    DONT_MASK = 6,
    /// `flock` locks go to the server.
    FLOCK_LOCKS = 10,
    /// ioctl(2) on directories.
    HAS_IOCTL_DIR = 11,
    /// Cached data go when a file's modification time has changed.
    AUTO_INVAL_DATA = 12,
    /// `READDIRPLUS`.
    DO_READDIRPLUS = 13,
    /// `READDIRPLUS` only where it seems worth it.
    READDIRPLUS_AUTO = 14,
    /// Asynchronous direct I/O.
    ASYNC_DIO = 15,
    /// The kernel writes back when it likes.
    WRITEBACK_CACHE = 16,
    /// Lookups and directory reads in parallel.
    PARALLEL_DIROPS = 18,
    /// The server clears set-id bits and capabilities (first form).
    HANDLE_KILLPRIV = 19,
    /// `POSIX` access control lists.
    POSIX_ACL = 20,
    /// `max_pages` in the reply. 7.28.
    MAX_PAGES = 22,
    /// Symbolic links are cached. 7.28.
    CACHE_SYMLINKS = 23,
    /// Mount points are announced. 7.32.
    SUBMOUNTS = 27,
    /// The server clears set-id bits where a request asks for it. 7.33.
    HANDLE_KILLPRIV_V2 = 28,
    /// The long form of `SETXATTR`. 7.33.
    SETXATTR_EXT = 29,
    /// There are `flags2`. 7.36.
    INIT_EXT = 30,
    /// New files come with a security context. 7.36.
    SECURITY_CTX = 32,
    /// DAX per inode. 7.36.
    HAS_INODE_DAX = 33,
    /// New files come with a supplementary group. 7.38.
    CREATE_SUPP_GROUP = 34,
    /// Entries can be expired. 7.38.
    HAS_EXPIRE_ONLY = 35,
    /// Shared mappings of files opened for direct I/O. 7.39.
    DIRECT_IO_ALLOW_MMAP = 36,
    /// File operations pass by the server. 7.40.
    PASSTHROUGH = 37,
    /// No NFS export. 7.40.
    NO_EXPORT_SUPPORT = 38,
    /// Requests can be sent again. 7.40.
    HAS_RESEND = 39,
}

impl Features {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// From the bits of both flag words.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// From the two words of `fuse_init_in`.
    pub const fn from_words(flags: u32, flags2: u32) -> Self {
        Self(flags as u64 | (flags2 as u64) << 32)
    }

    /// All bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The words for `fuse_init_out`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the two halves are taken apart"
    )]
    pub const fn words(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These, but not those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `other`, if `wanted`.
    #[must_use]
    pub const fn with_if(self, wanted: bool, other: Self) -> Self {
        if wanted { Self(self.0 | other.0) } else { self }
    }
}

impl BitAnd for Features {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Features {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

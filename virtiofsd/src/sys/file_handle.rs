//! File handles: a file of a mounted file system without a descriptor (open_by_handle_at(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use smallvec::SmallVec;

/// `MAX_HANDLE_SZ`.
const MAX: usize = 128;

/// `struct file_handle` with the most room there can be.
#[repr(C)]
struct Raw {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; MAX],
}

/// Names one file for as long as it exists; another file with the same inode number has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHandle {
    kind: i32,
    bytes: SmallVec<[u8; 16]>,
}

impl FileHandle {
    /// Its type and its bytes.
    pub(crate) fn parts(&self) -> (i32, &[u8]) {
        (self.kind, &self.bytes)
    }

    /// A handle of that type with those bytes, the first 128 of them.
    pub(crate) fn from_parts(kind: i32, bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(MAX)];
        Self {
            kind,
            bytes: SmallVec::from_slice(bytes),
        }
    }

    /// The handle of an open file, `O_PATH` included.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system has none.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        let mut raw = Raw {
            handle_bytes: 128,
            handle_type: 0,
            f_handle: [0; MAX],
        };
        let mut mount = 0;
        let handle = (&raw mut raw).cast::<libc::file_handle>();
        // SAFETY: the descriptor is open while borrowed, the path is a C string, and `raw` has the
        // room that it says.
        let result = unsafe {
            libc::name_to_handle_at(
                fd.as_fd().as_raw_fd(),
                c"".as_ptr(),
                handle,
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let bytes = &raw.f_handle[..(raw.handle_bytes as usize).min(MAX)];
        Ok(Self {
            kind: raw.handle_type,
            bytes: SmallVec::from_slice(bytes),
        })
    }

    /// Opens the file with `O_PATH`. `mount` is any file of its file system, not `O_PATH`. Needs
    /// `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `ESTALE` when the file is gone.
    pub(crate) fn open(&self, mount: impl AsFd) -> io::Result<OwnedFd> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(0);
        let mut raw = Raw {
            handle_bytes: len,
            handle_type: self.kind,
            f_handle: [0; MAX],
        };
        raw.f_handle[..self.bytes.len()].copy_from_slice(&self.bytes);
        let handle = (&raw mut raw).cast::<libc::file_handle>();
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the descriptor is open while borrowed, and `raw` holds as many bytes as it says.
        let fd = unsafe { libc::open_by_handle_at(mount.as_fd().as_raw_fd(), handle, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened just now and belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

//! Building a reply.

use std::io;

use crate::fuse::abi::OutHeader;
use crate::sys::{Pod, bytes_of};

/// Size of `struct fuse_out_header`, which every reply starts with.
pub const HEADER: usize = size_of::<OutHeader>();

/// A reply under construction: room for the header, then the body. The bytes belong to the
/// daemon; they are copied to the guest in one go when the reply is whole.
#[derive(Debug)]
pub struct Reply<'a> {
    bytes: &'a mut Vec<u8>,
    /// Most bytes the guest has room for, the header included.
    room: usize,
}

impl<'a> Reply<'a> {
    /// An empty reply in `bytes`, for a guest with `room` bytes for it.
    pub fn new(bytes: &'a mut Vec<u8>, room: usize) -> Self {
        bytes.clear();
        bytes.resize(HEADER, 0);
        Self { bytes, room }
    }

    /// A reply that was built elsewhere, for a guest with `room` bytes for it.
    pub fn resume(bytes: &'a mut Vec<u8>, room: usize) -> Self {
        bytes.resize(bytes.len().max(HEADER), 0);
        Self { bytes, room }
    }

    /// How many more bytes the guest has room for.
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.bytes.len())
    }

    /// Whether the guest has room for the header and `body` bytes after it.
    pub fn fits(&self, body: usize) -> bool {
        self.bytes.len() + body <= self.room
    }

    /// Appends a structure.
    ///
    /// # Errors
    /// `EINVAL`: no room.
    pub fn put<T: Pod>(&mut self, value: &T) -> io::Result<()> {
        self.put_bytes(bytes_of(value))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `EINVAL`: no room.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.room() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// What was put in so far.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// Fills the header in; the whole reply, ready for the guest. On an error the body goes.
    pub fn finish(self, unique: u64, result: io::Result<()>) -> &'a [u8] {
        if result.is_err() {
            self.bytes.truncate(HEADER);
        }
        let header = header(unique, self.bytes.len() - HEADER, result.as_ref().err());
        self.bytes[..HEADER].copy_from_slice(bytes_of(&header));
        self.bytes
    }
}

/// The header of a reply with `body` bytes after it; none after an error.
pub fn header(unique: u64, body: usize, error: Option<&io::Error>) -> OutHeader {
    let body = if error.is_some() { 0 } else { body };
    // Replies are bounded by MAX_IO.
    let len = u32::try_from(HEADER + body).unwrap_or(u32::MAX);
    OutHeader {
        len,
        error: error.map_or(0, |error| -errno_of(error)),
        unique,
    }
}

/// The errno that tells a guest of `error`.
pub fn errno_of(error: &io::Error) -> i32 {
    let number = error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        io::ErrorKind::AlreadyExists => libc::EEXIST,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        io::ErrorKind::OutOfMemory => libc::ENOMEM,
        _ => libc::EIO,
    });
    // The kernel takes -511..0 and fails the whole mount's request on anything else.
    if (1..512).contains(&number) {
        number
    } else {
        libc::EIO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_no_body() {
        let mut bytes = Vec::new();
        let mut reply = Reply::new(&mut bytes, 100);
        reply.put(&7u32).unwrap();
        let out = reply.finish(0x0102, Err(io::Error::from_raw_os_error(libc::ENOENT)));
        assert_eq!(
            out,
            [16, 0, 0, 0, 254, 255, 255, 255, 2, 1, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn room_is_kept_to() {
        let mut bytes = Vec::new();
        let mut reply = Reply::new(&mut bytes, 22);
        reply.put(&7u32).unwrap();
        assert_eq!(reply.room(), 2);
        assert!(reply.put(&7u32).is_err());
        assert_eq!(reply.finish(0, Ok(())).len(), 20);
    }
}

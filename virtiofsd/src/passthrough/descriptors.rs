//! Open files by their number in /proc/self/fd.

use std::ffi::CStr;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::sys::enter_descriptor_directory;

/// /proc/self/fd, held open: there an `O_PATH` descriptor can be opened again, for reading or
/// writing, without walking a path that someone may change meanwhile.
pub(super) struct DescriptorDirectory(OwnedFd);

impl From<OwnedFd> for DescriptorDirectory {
    fn from(descriptors: OwnedFd) -> Self {
        Self(descriptors)
    }
}

impl DescriptorDirectory {
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(
            c"/proc/self/fd",
            flags,
            Mode::empty(),
        )?))
    }

    /// Opens the file behind `fd` again. The caller has made sure that it is a regular file or a
    /// directory: opening others may block, or do something.
    pub(super) fn reopen(&self, fd: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
        let name = DescriptorName::of(&fd);
        Ok(rustix::fs::openat(
            &self.0,
            name.as_c_str(),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    /// For system calls that take a directory and a name, and follow it.
    pub(super) fn name<'f>(&self, fd: &'f impl AsFd) -> (&OwnedFd, DescriptorName<'f>) {
        (&self.0, DescriptorName::of(fd))
    }

    /// For system calls that take a path only: the path holds on this thread.
    pub(super) fn path<'f>(&self, fd: &'f impl AsFd) -> io::Result<DescriptorName<'f>> {
        enter_descriptor_directory(&self.0)?;
        Ok(DescriptorName::of(fd))
    }
}

/// A descriptor's number in decimal, for as long as it is open.
pub(super) struct DescriptorName<'f>([u8; 16], PhantomData<&'f ()>);

impl<'f> DescriptorName<'f> {
    fn of(fd: &'f impl AsFd) -> Self {
        let mut name = [0; 16];
        // Ten digits at most: there is room, and a NUL stays.
        let _ = write!(&mut name[..], "{}", fd.as_fd().as_raw_fd());
        Self(name, PhantomData)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

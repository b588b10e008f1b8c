//! Security labels of new files (`FUSE_SECURITY_CTX`).
//!
//! The host gives a new file whatever label its own policy has for the daemon; the guest's is set right
//! after that, before the guest hears of the file. What cannot have its label must not stay.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;

use super::Passthrough;
use crate::file_system::Creator;

impl Passthrough {
    /// Labels a file without a name.
    pub(super) fn label(&self, creator: &Creator, file: &impl AsFd) -> io::Result<()> {
        for label in &creator.labels {
            let name = &*self.host_xattr(&label.name)?;
            self.set_xattr_of(file, name, &label.value, 0)?;
        }
        Ok(())
    }

    /// Labels a file that was just made as `name` in `directory`, or removes it.
    pub(super) fn label_or_remove(
        &self,
        creator: &Creator,
        file: &impl AsFd,
        (directory, name): (impl AsFd, &CStr),
    ) -> io::Result<()> {
        let labelled = self.label(creator, file);
        if labelled.is_err() {
            let is_directory = rustix::fs::fstat(file)
                .is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFDIR);
            let flags = if is_directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            // The first error is the one to hear of.
            let _ = rustix::fs::unlinkat(directory, name, flags);
        }
        labelled
    }
}

//! The descriptor that interrupts the guest.

use std::fs::File;
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};

/// A front end's call descriptor: an eventfd, or a pipe or socket (User-Mode Linux).
#[derive(Debug)]
pub struct Call {
    file: File,
    /// Whether a write may wait for the front end. It must never: the queue's thread would.
    may_block: bool,
}

impl Call {
    /// Takes a descriptor over.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub fn new(file: File) -> io::Result<Self> {
        // Set or not, the flag belongs to the front end too: it stays as it is.
        let may_block = !fcntl_getfl(&file)?.contains(OFlags::NONBLOCK);
        Ok(Self { file, may_block })
    }

    /// Signals it. A descriptor that is full is signalled already.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn signal(&self) -> io::Result<()> {
        if self.may_block {
            let mut waiting = [PollFd::new(&self.file, PollFlags::OUT)];
            let now = Timespec::default();
            poll(&mut waiting, Some(&now))?;
            if !waiting[0].revents().contains(PollFlags::OUT) {
                return Ok(());
            }
        }
        match rustix::io::write(&self.file, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Another handle of the same descriptor.
    ///
    /// # Errors
    /// dup(2)'s.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            may_block: self.may_block,
        })
    }
}

//! The descriptor that interrupts the guest.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};

/// A front end's call descriptor: an eventfd, or a pipe or socket (User-Mode Linux).
///
/// Its status flags are the front end's too, which may change them, and may fill it at any time: a write can wait all
/// the same. Whoever needs the thread back finds out by [`Signalling`], and interrupts it.
#[derive(Debug)]
pub struct Call {
    file: File,
    /// Whether a write may wait for the front end. It should never: the queue's thread would.
    may_block: Cell<bool>,
    signalling: Signalling,
}

/// Whether the thread of a queue is writing to a call descriptor.
#[derive(Clone, Debug, Default)]
pub struct Signalling(Arc<AtomicBool>);

impl Signalling {
    /// Whether it is now.
    pub fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Call {
    /// Takes a descriptor over, of a queue that tells in `signalling` when it writes.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub fn new(file: File, signalling: &Signalling) -> io::Result<Self> {
        // Set or not, the flag belongs to the front end too: it stays as it is.
        let may_block = !fcntl_getfl(&file)?.contains(OFlags::NONBLOCK);
        Ok(Self {
            file,
            may_block: Cell::new(may_block),
            signalling: signalling.clone(),
        })
    }

    /// Signals it. A descriptor that is full is signalled already.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn signal(&self) -> io::Result<()> {
        if self.may_block.get() {
            let mut waiting = [PollFd::new(&self.file, PollFlags::OUT)];
            let now = Timespec::default();
            poll(&mut waiting, Some(&now))?;
            if !waiting[0].revents().contains(PollFlags::OUT) {
                return Ok(());
            }
        }
        self.signalling.0.store(true, Ordering::Relaxed);
        let written = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
        self.signalling.0.store(false, Ordering::Relaxed);
        match written {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            // It was full and would have waited.
            Err(rustix::io::Errno::INTR) => {
                self.may_block.set(true);
                Ok(())
            }
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
            may_block: self.may_block.clone(),
            signalling: self.signalling.clone(),
        })
    }
}

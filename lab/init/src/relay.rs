//! Moves the command's bytes between its own streams and the ports to the host.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// Bytes moved at a time: what the kernel's virtio-serial driver takes in one write.
const CHUNK: usize = 32 * 1024;

/// Copies all of `from` into `port` on a thread of its own, which returns the bytes copied.
pub(crate) fn copy_output(mut from: File, mut port: File) -> JoinHandle<u64> {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) | Err(_) => return total,
                Ok(length) => length,
            };
            if let Err(error) = port.write_all(&buffer[..length]) {
                eprintln!("ringside-lab-init: cannot pass output on to the host: {error}");
                return total;
            }
            total += length as u64;
        }
    })
}

/// The command's input: ends after a count of bytes that the host tells when it knows it.
pub(crate) struct Input {
    end: AtomicU64,
    changed: OwnedFd,
}

impl Input {
    pub(crate) fn new() -> io::Result<Self> {
        let changed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            end: AtomicU64::new(u64::MAX),
            changed,
        })
    }

    /// The input ends after `bytes` bytes since its start.
    pub(crate) fn end_after(&self, bytes: u64) -> io::Result<()> {
        self.end.store(bytes, Ordering::Release);
        rustix::io::write(&self.changed, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Copies `port` into `to` on a thread of its own until the input ends or nobody reads it.
    pub(crate) fn feed(self: &Arc<Self>, port: File, to: File) {
        let input = Arc::clone(self);
        thread::spawn(move || {
            if let Err(error) = input.copy(port, to)
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                eprintln!("ringside-lab-init: cannot pass input on to the command: {error}");
            }
        });
    }

    fn copy(&self, mut port: File, mut to: File) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        while total < self.end.load(Ordering::Acquire) {
            if !self.readable(&port)? {
                continue;
            }
            let length = port.read(&mut buffer)?;
            if length == 0 {
                // The hypervisor closed its side, so nobody will say more.
                break;
            }
            to.write_all(&buffer[..length])?;
            total += length as u64;
        }
        Ok(())
    }

    /// Waits for input or for news about its end; says whether there is input.
    fn readable(&self, port: &File) -> io::Result<bool> {
        let mut fds = [
            PollFd::new(port, PollFlags::IN),
            PollFd::new(&self.changed, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [input, changed] = fds.map(|fd| !fd.revents().is_empty());
        if changed {
            let _ = rustix::io::read(&self.changed, &mut [0; 8]);
        }
        Ok(input)
    }
}

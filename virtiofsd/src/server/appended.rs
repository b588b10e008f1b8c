//! Whether data were appended to a file by the process before this one.

use std::io::{self, Result};
use std::sync::{Mutex, PoisonError};

use super::Server;
use crate::file_system::GuestFileSystem;

/// More than what one write appends, as others may have appended meanwhile.
const SEARCHED: usize = 16 << 20;

/// Data that were found: each was appended by one request.
#[derive(Debug, Default)]
pub(super) struct Found(Mutex<Vec<(u64, u64)>>);

impl Found {
    /// Whether nobody has claimed the data at `offset` of node `inode` yet.
    fn claim(&self, inode: u64, offset: u64) -> bool {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !found.contains(&(inode, offset));
        if new {
            found.push((inode, offset));
        }
        new
    }
}

impl<F: GuestFileSystem> Server<F> {
    /// Whether `data` are behind the first `before` bytes of a file, and no other request has put them
    /// there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn was_appended(&self, inode: u64, before: u64, data: &[u8]) -> Result<bool> {
        let mut behind = vec![0; SEARCHED];
        let mut len = 0;
        while len < behind.len() {
            let offset = before + len as u64;
            match self
                .file_system
                .read_back(inode, offset, &mut behind[len..])
            {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut places = memchr::memmem::find_iter(&behind[..len], data);
        Ok(places.any(|at| self.found.claim(inode, before + at as u64)))
    }
}

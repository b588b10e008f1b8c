//! What the process before this one has appended to a file.

#[cfg(test)]
mod tests;

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
    /// How many of `data`, from the first one on, are behind the first `before` bytes of a file, and no
    /// other request has put them there.
    ///
    /// All, wherever they are; or those that a write leaves whose process is killed (Linux ends it where a
    /// page of the file or of the data ends), if nothing else is there: others may have appended something
    /// that begins alike. A guest's kernel appends to a file by one request after the other.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn appended(&self, inode: u64, before: u64, data: &[u8]) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let behind = self.read_behind(inode, before)?;
        let mut places = memchr::memmem::find_iter(&behind, data);
        if places.any(|at| self.found.claim(inode, before + at as u64)) {
            return Ok(data.len());
        }
        let is_begun = !behind.is_empty() && data.starts_with(&behind);
        Ok(if is_begun && self.found.claim(inode, before) {
            behind.len()
        } else {
            0
        })
    }

    /// What is behind the first `before` bytes of a file, as far as it is searched.
    fn read_behind(&self, inode: u64, before: u64) -> Result<Vec<u8>> {
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
        behind.truncate(len);
        Ok(behind)
    }
}

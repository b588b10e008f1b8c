//! One file that several processes work on at a time, each in stripes of its own: what one writes is
//! what it reads, whatever the others do to the same pages.
//!
//! No holes: Linux's FUSE client may write a page back, which another process has written through a
//! mapping, after a hole was made in it, with what was there before (seen with other daemons, too).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{Advice, fadvise};

use super::open;
use super::random::Random;
use crate::mapping::{self, Sharing};

/// No multiple of a page.
const STRIPE: usize = 5003;
const STRIPES: usize = 48;
/// The file never changes its length.
pub const LEN: usize = STRIPE * STRIPES;

/// What one of the processes does.
pub struct Stripes {
    path: PathBuf,
    file: File,
    random: Random,
    /// Those of its own: their number and content.
    own: Vec<(usize, Vec<u8>)>,
}

impl Stripes {
    /// Process `index` of `count`, on a file of [`LEN`] zeros.
    pub fn new(path: PathBuf, seed: u64, index: usize, count: usize) -> Self {
        let file = open(&path, false);
        let own = (index..STRIPES).step_by(count);
        Self {
            file,
            path,
            random: Random::new(seed),
            own: own.map(|stripe| (stripe, vec![0; STRIPE])).collect(),
        }
    }

    /// Does `operations` things.
    ///
    /// # Errors
    /// What was wrong.
    pub fn run(&mut self, operations: u64) -> Result<(), String> {
        for number in 1..=operations {
            self.step()
                .map_err(|what| format!("operation {number}: {what}"))?;
        }
        for index in 0..self.own.len() {
            self.check(index, 0, STRIPE)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let index = self.random.below(self.own.len() as u64) as usize;
        let at = self.random.below(STRIPE as u64) as usize;
        let len = self.random.length((STRIPE - at) as u64) as usize;
        let offset = self.own[index].0 * STRIPE + at;
        match self.random.below(20) {
            0..7 => {
                let content = self.random.bytes(len);
                self.file
                    .write_all_at(&content, offset as u64)
                    .map_err(failed)?;
                self.own[index].1[at..at + len].copy_from_slice(&content);
            }
            7..11 => {
                let content = self.random.bytes(len);
                if let Ok(mapping) = mapping::map(&self.file, LEN, Sharing::Shared) {
                    mapping.write(offset, &content);
                    self.own[index].1[at..at + len].copy_from_slice(&content);
                }
            }
            11 => self.file.sync_data().map_err(failed)?,
            12 => fadvise(&self.file, 0, None, Advice::DontNeed).map_err(|e| failed(e.into()))?,
            13 => self.file = open(&self.path, false),
            14..16 => {
                if let Ok(mapping) = mapping::map(&self.file, LEN, Sharing::ReadOnly) {
                    let found = mapping.read(offset, len);
                    self.same(index, at, &found)?;
                }
            }
            _ => self.check(index, at, len)?,
        }
        Ok(())
    }

    fn check(&self, index: usize, at: usize, len: usize) -> Result<(), String> {
        let mut found = vec![0; len];
        let offset = self.own[index].0 * STRIPE + at;
        self.file
            .read_exact_at(&mut found, offset as u64)
            .map_err(|error| error.to_string())?;
        self.same(index, at, &found)
    }

    fn same(&self, index: usize, at: usize, found: &[u8]) -> Result<(), String> {
        let (stripe, content) = &self.own[index];
        let wanted = &content[at..at + found.len()];
        match found
            .iter()
            .zip(wanted)
            .position(|(one, other)| one != other)
        {
            None => Ok(()),
            Some(first) => Err(format!(
                "stripe {stripe}, byte {}: {:x?} instead of {:x?}",
                at + first,
                &found[first..found.len().min(first + 8)],
                &wanted[first..wanted.len().min(first + 8)]
            )),
        }
    }
}

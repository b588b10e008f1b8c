//! Copies that the kernel makes.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use rustix::fs::{copy_file_range, sendfile};

use super::Exercise;
use super::operation::{LONGEST, Range};
use super::perform::{Outcome, failed};

impl Exercise {
    /// Where `range` goes, if there is room for it, and it does not overlap with where it was.
    fn goes(range: Range, at: u64) -> Option<u64> {
        let apart = at >= range.end() || at + range.len <= range.at;
        (apart && at + range.len <= LONGEST).then_some(at)
    }

    fn copy(from: &File, mut at: u64, to: &File, mut target: u64, len: u64) -> Outcome {
        let mut left = len as usize;
        while left > 0 {
            match copy_file_range(from, Some(&mut at), to, Some(&mut target), left) {
                Ok(0) => return Err(format!("copied {left} of {len} bytes too few")),
                Ok(copied) => left -= copied,
                Err(error) => return Err(format!("copy: {error}")),
            }
        }
        Ok(())
    }

    pub(super) fn copy_within(&mut self, range: Range, at: u64) -> Outcome {
        let Some(at) = Self::goes(range, at) else {
            return Ok(());
        };
        Self::copy(&self.file, range.at, &self.file, at, range.len)?;
        let content = self.model.read(range).to_vec();
        self.model.write(at, &content);
        self.check_size()
    }

    pub(super) fn copy_over(&mut self, range: Range, at: u64) -> Outcome {
        let at = at.min(LONGEST - range.len);
        Self::copy(&self.file, range.at, &self.other, range.at, range.len)?;
        Self::copy(&self.other, range.at, &self.file, at, range.len)?;
        let content = self.model.read(range).to_vec();
        self.model.write(at, &content);
        self.check_size()
    }

    pub(super) fn send(&mut self, range: Range, at: u64) -> Outcome {
        let at = at.min(LONGEST - range.len);
        self.other.set_len(0).map_err(failed)?;
        self.other.rewind().map_err(failed)?;
        let send = |to: &File, from: &File, mut offset: u64| -> Outcome {
            let mut left = range.len as usize;
            while left > 0 {
                match sendfile(to, from, Some(&mut offset), left).map_err(failed)? {
                    0 => return Err(format!("sent {left} bytes too few")),
                    sent => left -= sent,
                }
            }
            Ok(())
        };
        send(&self.other, &self.file, range.at)?;
        self.file.seek(SeekFrom::Start(at)).map_err(failed)?;
        send(&self.file, &self.other, 0)?;
        let content = self.model.read(range).to_vec();
        self.model.write(at, &content);
        self.check_size()
    }
}

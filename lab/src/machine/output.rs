//! What a command in the machine did.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use crate::guest::evidence;

/// How a command ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code, or 128 and the signal that ended it.
    pub code: u8,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: Vec<u8>,
    /// What the machine's kernel said.
    pub console: String,
}

impl Output {
    /// The standard output of a command that must have ended with exit code zero.
    ///
    /// # Errors
    /// When it ended with another one; the error shows the ends of all it said.
    pub fn success(self) -> Result<String, Error> {
        let stdout = String::from_utf8_lossy(&self.stdout);
        if self.code == 0 {
            return Ok(stdout.into_owned());
        }
        let said = stdout + String::from_utf8_lossy(&self.stderr);
        Err(Error::Failed {
            code: self.code,
            evidence: evidence(&said, &self.console),
        })
    }

    /// Fails unless the test of [`Machine::of_test`](super::Machine::of_test) ran and passed, with all that was said.
    ///
    /// # Panics
    /// When it failed or there is none of that name.
    #[track_caller]
    pub fn passed(&self) {
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert!(
            self.code == 0 && stdout.contains("1 passed"),
            "exit code {} in the lab\n{stdout}\n{}\n--- console ---\n{}",
            self.code,
            String::from_utf8_lossy(&self.stderr),
            self.console
        );
    }
}

/// Keeps what is written to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Output between a processor, which must not wait, and whoever reads it, who may be slow.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait at most.
const MOST: usize = 256 << 10;

/// The bytes that nobody took yet.
#[derive(Debug, Default)]
pub struct Buffer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Bytes that did not fit.
    lost: u64,
    /// Somebody is writing out what he took.
    busy: bool,
}

/// The guest's end.
#[derive(Debug, Clone)]
pub struct Output(Arc<Buffer>);

impl Buffer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// An end to write into.
    #[must_use]
    pub fn output(self: &Arc<Self>) -> Output {
        Output(self.clone())
    }

    /// Waits for bytes and hands them to `write`. False when that fails: nobody will read any more.
    pub(super) fn pass_on(&self, write: impl FnOnce(&[u8]) -> io::Result<()>) -> bool {
        let (bytes, lost) = self.wait();
        if lost > 0 {
            tracing::warn!(
                lost,
                "nobody read the serial console in time: output is lost"
            );
        }
        let written = write(&bytes).is_ok();
        self.state().busy = false;
        self.changed.notify_all();
        written
    }

    pub(super) fn wait_empty(&self, limit: Duration) {
        let waiting = |state: &mut State| state.busy || !state.bytes.is_empty();
        let waited = self
            .changed
            .wait_timeout_while(self.state(), limit, waiting);
        drop(waited);
    }

    /// What is there, without waiting.
    #[cfg(test)]
    pub(crate) fn take_now(&self) -> Vec<u8> {
        self.state().bytes.drain(..).collect()
    }

    fn wait(&self) -> (Vec<u8>, u64) {
        let mut state = self
            .changed
            .wait_while(self.state(), |state| state.bytes.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.busy = true;
        let lost = std::mem::take(&mut state.lost);
        (state.bytes.drain(..).collect(), lost)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        let room = MOST.saturating_sub(state.bytes.len()).min(bytes.len());
        state.bytes.extend(&bytes[..room]);
        state.lost += (bytes.len() - room) as u64;
        self.0.changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_nobody_reads_stays_bounded() {
        let buffer = Buffer::new();
        let mut output = buffer.output();
        for _ in 0..300 {
            output.write_all(&[b'x'; 1024]).unwrap();
        }
        assert_eq!(buffer.state().lost, (300 - 256) * 1024);
        assert!(buffer.pass_on(|bytes| {
            assert_eq!(bytes.len(), MOST);
            Ok(())
        }));
        buffer.wait_empty(Duration::ZERO);
        assert_eq!(buffer.state().lost, 0);
    }
}

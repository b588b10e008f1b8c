//! Long work before the machine starts: a download, an image of a large directory.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::signals::{Signals, ends_a_run};

/// How soon a signal ends the work.
const PAUSE: Duration = Duration::from_millis(10);

/// A signal ended the work.
#[derive(Debug, thiserror::Error)]
#[error("ended by signal {0}")]
pub struct Interrupted(pub(super) i32);

impl Interrupted {
    /// As a shell has it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(u8::MAX)
    }
}

/// Does `work` on a thread of its own, so that a signal can end the run in the middle of it. The
/// programs that the work started end with its thread, which ends with this process.
pub(crate) fn unless_interrupted<T: Send + 'static>(
    signals: &mut Signals,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    let (sender, done) = channel();
    let worker = thread::spawn(move || {
        // Nobody waits for it any more only when this process ends.
        let _ = sender.send(work());
    });
    loop {
        let outcome = done.recv_timeout(PAUSE);
        while let Ok(signal) = signals.try_recv() {
            if ends_a_run(signal) {
                return Err(Interrupted(signal));
            }
        }
        match outcome {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match worker.join() {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(()) => Err(Interrupted(signal_hook::consts::SIGTERM)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use signal_hook::consts::{SIGINT, SIGWINCH};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn a_signal_ends_the_wait_and_a_new_window_size_does_not() {
        let (sender, mut signals) = unbounded_channel();
        sender.send(SIGWINCH).unwrap();
        assert_eq!(unless_interrupted(&mut signals, || 7).unwrap(), 7);
        sender.send(SIGINT).unwrap();
        let start = Instant::now();
        let long = || thread::sleep(Duration::from_secs(5));
        let interrupted = unless_interrupted(&mut signals, long).unwrap_err();
        assert_eq!(interrupted.exit_code(), 130);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

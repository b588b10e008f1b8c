//! What a process says, collected as it comes.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::POLL;

/// What a pipe delivered so far.
#[derive(Debug)]
pub(crate) struct Transcript {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Transcript {
    pub(crate) fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = pipe.map(|pipe| thread::spawn(move || copy(pipe, &sink)));
        Self { bytes, reader }
    }

    pub(crate) fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All of it. A grandchild that keeps the pipe open is not waited for.
    pub(crate) fn finish(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_millis(500);
        if let Some(reader) = self.reader.take() {
            while !reader.is_finished() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        self.text()
    }
}

fn copy(mut pipe: impl Read, sink: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        sink.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(&buffer[..len]);
    }
}

//! Copies of passing frames for whoever asks, as a stream in pcap's format.
//!
//! The frames go to the client of the control socket that asked: the daemon writes no file.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Frames that wait for the client at most; more are left out.
const WAITING: usize = 1024;
/// Captures of one port at a time.
const MOST: usize = 4;
/// No frame is copied beyond this.
pub const MAX_SNAP: usize = 65_535;

/// A frame's copy.
struct Record {
    at: Duration,
    len: usize,
    bytes: Vec<u8>,
}

/// The captures of one port.
#[derive(Debug, Default)]
pub struct Taps {
    /// Whether there is any: without, nothing else is touched.
    active: AtomicBool,
    clients: Mutex<Vec<Client>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Client {
    id: u64,
    records: SyncSender<Record>,
    snap: usize,
}

/// The client's end: frames until it is dropped.
pub struct Capture {
    id: u64,
    records: Receiver<Record>,
    snap: usize,
    taps: Arc<Taps>,
}

impl Taps {
    /// Whether anybody wants copies.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The longest copy that anybody wants.
    pub fn snap(&self) -> usize {
        self.lock().iter().map(|it| it.snap).max().unwrap_or(0)
    }

    /// Begins a capture of the first `snap` bytes of each frame; `None` if there are enough already.
    pub fn open(self: &Arc<Self>, snap: usize) -> Option<Capture> {
        let snap = snap.clamp(1, MAX_SNAP);
        let mut clients = self.lock();
        if clients.len() >= MOST {
            return None;
        }
        let (sender, records) = sync_channel(WAITING);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        clients.push(Client {
            id,
            records: sender,
            snap,
        });
        self.active.store(true, Ordering::Relaxed);
        Some(Capture {
            id,
            records,
            snap,
            taps: self.clone(),
        })
    }

    /// A frame of `len` bytes passed that begins with `bytes`.
    pub fn passed(&self, bytes: &[u8], len: usize) {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        for client in self.lock().iter() {
            let bytes = bytes.get(..client.snap).unwrap_or(bytes).to_vec();
            // One that does not keep up misses frames.
            let _ = client.records.try_send(Record { at, len, bytes });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Writes what passes until `frames` have been written (0: no end), or the client has gone: `gone`
    /// tells while nothing passes.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn write_to(
        self,
        out: &mut impl Write,
        frames: u64,
        gone: impl Fn() -> bool,
    ) -> io::Result<()> {
        out.write_all(&file_header(self.snap))?;
        let mut written = 0;
        loop {
            match self.records.recv_timeout(Duration::from_secs(1)) {
                Ok(record) => out.write_all(&record.to_bytes())?,
                Err(RecvTimeoutError::Timeout) if !gone() => continue,
                Err(_) => return Ok(()),
            }
            written += 1;
            if written == frames {
                return Ok(());
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let mut clients = self.taps.lock();
        clients.retain(|client| client.id != self.id);
        self.taps
            .active
            .store(!clients.is_empty(), Ordering::Relaxed);
    }
}

impl Record {
    /// Seconds, microseconds, bytes kept, bytes there were; then the bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let seconds = u32::try_from(self.at.as_secs()).unwrap_or(u32::MAX);
        let fields = [
            seconds,
            self.at.subsec_micros(),
            small(self.bytes.len()),
            small(self.len),
        ];
        let mut bytes = fields.map(u32::to_le_bytes).concat();
        bytes.extend(&self.bytes);
        bytes
    }
}

/// Magic number, version 2.4, time zone, accuracy, longest copy, Ethernet
/// (draft-ietf-opsawg-pcap).
fn file_header(snap: usize) -> Vec<u8> {
    let snap = u32::try_from(snap).unwrap_or(u32::MAX);
    [0xa1b2_c3d4, 0x0004_0002, 0, 0, snap, 1]
        .map(u32::to_le_bytes)
        .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_as_pcap() {
        let taps = Arc::new(Taps::default());
        let capture = taps.open(4).unwrap();
        assert!(taps.is_active());
        taps.passed(&[1, 2, 3, 4, 5, 6], 6);
        taps.passed(&[7, 8], 2);
        let mut file = Vec::new();
        capture.write_to(&mut file, 2, || true).unwrap();
        assert_eq!(file.len(), 24 + 16 + 4 + 16 + 2);
        assert_eq!(file[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        let first = &file[24..];
        assert_eq!(first[8..20], [4, 0, 0, 0, 6, 0, 0, 0, 1, 2, 3, 4]);
        assert!(!taps.is_active());
    }

    #[test]
    fn a_client_that_does_not_read_costs_frames_and_memory_no_more() {
        let taps = Arc::new(Taps::default());
        let captures: Vec<_> = (0..MOST).map(|_| taps.open(100).unwrap()).collect();
        assert!(taps.open(100).is_none());
        for _ in 0..2 * WAITING {
            taps.passed(&[0; 60], 60);
        }
        let mut file = Vec::new();
        captures
            .into_iter()
            .next()
            .unwrap()
            .write_to(&mut file, WAITING as u64, || true)
            .unwrap();
        assert_eq!(file.len(), 24 + WAITING * 76);
        assert!(!taps.is_active());
    }
}

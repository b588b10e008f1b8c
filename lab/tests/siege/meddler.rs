//! Somebody who changes what the daemon is reading.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use lab::frontend::{GuestAddress, GuestMemory};

use super::dice::Dice;

/// Changes between two looks at whether to stop.
const BURST: u64 = 200;

/// Where it meddles: address and length.
pub(crate) type Ranges = Arc<Mutex<Vec<(GuestAddress, u64)>>>;

/// A thread that writes to rings, descriptors and headers without a pause until it is dropped.
pub(crate) struct Meddler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meddler {
    pub(crate) fn start(memory: &GuestMemory, ranges: &Ranges, mut dice: Dice) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ranges, memory) = (Arc::clone(&stop), Arc::clone(ranges), memory.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let ranges = ranges.lock().unwrap().clone();
                for _ in 0..BURST {
                    change(&memory, &ranges, &mut dice);
                }
                // Between, the daemon may find something whole.
                match dice.below(3) {
                    0 => thread::yield_now(),
                    1 => thread::sleep(std::time::Duration::from_micros(dice.below(500))),
                    _ => {}
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is not this one's.
            let _ = thread.join();
        }
    }
}

fn change(memory: &GuestMemory, ranges: &[(GuestAddress, u64)], dice: &mut Dice) {
    let (start, len) = ranges[dice.below(ranges.len() as u64) as usize];
    let width = 1 << dice.below(4);
    let at = dice.below(len.saturating_sub(8).max(1));
    let value = dice.any().to_le_bytes();
    let at = GuestAddress(start.0 + at);
    memory.write(at, &value[..width]).unwrap();
}

//! The file that says which requests an earlier process left, with any content, and a ring that goes on with it.
//!
//! Byte 0 chooses what is done with the requests, bytes 1 and 2 are the used index that the front end names; then
//! come the 16 words of the queue's log, and guest memory from the descriptor table on.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tempfile::TempDir;
use vhost_daemon::boot_id::BootId;
use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::metrics::QueueMetrics;
use vhost_daemon::queue::{InFlightFile, InFlightLog, RunningQueue};
use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress};

const SIZE: u16 = 8;
const MEMORY: usize = 0x3000;
/// Bytes of the file's own header, which names the layout, and of one queue's log.
const HEADER: u64 = 64;
const LOG: usize = 128;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new_in("/dev/shm").unwrap());

fn open(path: &Path) -> InFlightFile {
    InFlightFile::open(path, BootId::current(), 1, SIZE).unwrap()
}

fn log_with(path: &Path, words: &[u8]) -> InFlightLog {
    drop(open(path));
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(words, HEADER).unwrap();
    open(path).queue(0)
}

fn start(memory: &PinnedMemory, used: u16, log: InFlightLog) -> RunningQueue {
    let state = QueueState {
        max_size: SIZE,
        next_avail: used,
        next_used: used,
        event_idx_enabled: false,
        size: SIZE,
        ready: true,
        desc_table: 0,
        avail_ring: 0x80,
        used_ring: 0x100,
    };
    let metrics = Arc::new(QueueMetrics::default());
    RunningQueue::new(&state, memory.clone(), None, metrics, Some(log)).unwrap()
}

/// Serves what there is; no request comes twice.
fn serve(queue: &mut RunningQueue, choice: u8) {
    let mut held = Vec::new();
    while let Ok(Some((token, _chain))) = queue.pop() {
        match choice & 3 {
            0 => queue.complete(token, 0),
            1 => held.push(token),
            _ if held.len() < 3 => held.push(token),
            _ => queue.complete(token, 0),
        }
        if choice & 4 != 0 {
            queue.publish();
        }
    }
    assert!(held.len() <= usize::from(SIZE));
    for token in held {
        queue.complete(token, 0);
    }
    queue.publish();
    assert_eq!((queue.in_flight(), queue.left_over()), (0, 0));
}

/// What one input does.
pub fn run(input: &[u8]) {
    let Some(([choice, low, high], rest)) = input.split_first_chunk::<3>() else {
        return;
    };
    let Some((words, content)) = rest.split_at_checked(LOG) else {
        return;
    };
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let content = &content[..content.len().min(MEMORY)];
    memory.write_slice(content, GuestAddress(0)).unwrap();
    let memory = PinnedMemory::new(memory).unwrap();
    let path = DIRECTORY.path().join("in-flight");
    let mut queue = start(
        &memory,
        u16::from_le_bytes([*low, *high]),
        log_with(&path, words),
    );
    assert!(queue.left_over() <= usize::from(SIZE));
    serve(&mut queue, *choice);
    let used = queue.next_used();
    drop(queue);
    // All was completed and published: nothing is left for the next one.
    assert_eq!(start(&memory, used, open(&path).queue(0)).left_over(), 0);
}

//! The file that says which requests an earlier process left, with any content, and a ring that goes on with it.
//!
//! Byte 0 chooses what is done with the requests, bytes 1 and 2 are the used index that the front end names; then
//! come the 16 words of the queue's log, and guest memory from the descriptor table on.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;
use vhost_daemon::boot_id::BootId;
use vhost_daemon::queue::{InFlightFile, InFlightLog, RunningQueue};

use crate::queue::{SIZE, memory_of, start};

/// Bytes of the file's own header, which names the layout, and of one queue's log.
const HEADER: u64 = 64;
const LOG: usize = 128;

thread_local! {
    /// Goes with its thread: what is static never goes.
    static DIRECTORY: TempDir = TempDir::new_in("/dev/shm").unwrap();
}

fn open(path: &Path) -> InFlightFile {
    InFlightFile::open(path, BootId::current(), 1, SIZE).unwrap()
}

fn log_with(path: &Path, words: &[u8]) -> InFlightLog {
    drop(open(path));
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(words, HEADER).unwrap();
    open(path).queue(0)
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
    let memory = memory_of(content);
    let path = DIRECTORY.with(|it| it.path().join("in-flight"));
    let used = u16::from_le_bytes([*low, *high]);
    let mut queue = start(&memory, used, false, Some(log_with(&path, words)));
    assert!(queue.left_over() <= usize::from(SIZE));
    serve(&mut queue, *choice);
    let used = queue.next_used();
    drop(queue);
    // All was completed and published: nothing is left for the next one.
    let next = start(&memory, used, false, Some(open(&path).queue(0)));
    assert_eq!(next.left_over(), 0);
}

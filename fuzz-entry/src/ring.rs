//! A queue on guest memory made of the input: rings, descriptors, indirect tables.
//!
//! Byte 0 chooses `EVENT_IDX`; the rest is guest memory from the descriptor table on.

use crate::queue::{memory_of, start};

/// What one input does.
pub fn run(input: &[u8]) {
    let Some((choice, content)) = input.split_first() else {
        return;
    };
    let mut queue = start(&memory_of(content), 0, choice & 1 == 1, None);
    while let Ok(Some((token, chain))) = queue.pop() {
        let written = chain.map_or(0, |chain| {
            assert!(chain.readable.len() + chain.writable.len() <= 1 << 32);
            let mut writable = chain.writable;
            writable.zero_front(64);
            writable.advance(64);
            0
        });
        queue.complete(token, written);
        queue.publish();
    }
    assert_eq!(queue.in_flight(), 0);
}

//! A frame behind its virtio header, as one guest sends it and the switch finishes it for another.

use vhost_user_net::header::HeaderLen;
use vhost_user_net::offload::{FrameHeader, finish};

/// What one input does.
pub fn run(bytes: &[u8]) {
    let Some(len) = bytes.len().checked_sub(HeaderLen::Modern.bytes()) else {
        return;
    };
    let Some(header) = FrameHeader::parse(bytes, len) else {
        return;
    };
    let mut total = 0;
    let finished = finish(header, bytes, |header, parts| {
        assert!(header.iter().all(|byte| *byte == 0));
        let frame: usize = parts.iter().map(|part| part.len()).sum();
        assert!(frame <= len);
        total += frame;
        true
    });
    // A frame of one byte a segment has its headers in front of each.
    assert!(finished.is_err() || (total >= len && total <= len * len.max(1)));
}

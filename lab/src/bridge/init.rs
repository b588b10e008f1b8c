//! `FUSE_INIT` on its way: what /dev/fuse offers and a virtio-fs device cannot have.

use super::layout::{MAX_IO, MAX_PAGES};
use super::{Error, Result};
use crate::frontend::fs::{InitReply, OUT_HEADER_LEN, parse_init, u32_at};

/// Flags (linux/fuse.h) that concern /dev/fuse itself and not the server behind it, or need more of
/// a bridge than to forward: splicing, DAX and its alignment, passing by the server, requests sent
/// again, id-mapped mounts, requests over io_uring, time limits.
const NOT_FORWARDED: u64 =
    1 << 7 | 1 << 8 | 1 << 9 | 1 << 26 | 1 << 33 | 1 << 37 | 1 << 39 | 1 << 40 | 1 << 41 | 1 << 42;

/// `fuse_init_in.flags` and `.flags2`: their offsets in the body.
const IN_FLAGS: usize = 12;
const IN_FLAGS2: usize = 16;

/// Takes flags out of a request's body.
pub(super) fn mask_request(body: &mut [u8]) {
    for (offset, mask) in [(IN_FLAGS, NOT_FORWARDED), (IN_FLAGS2, NOT_FORWARDED >> 32)] {
        let low = u32::try_from(mask & 0xffff_ffff).unwrap_or(0);
        if let (Some(flags), Some(bytes)) = (u32_at(body, offset), body.get_mut(offset..offset + 4))
        {
            bytes.copy_from_slice(&(flags & !low).to_le_bytes());
        }
    }
}

/// Reads a reply: the header's error, and the body.
pub(super) fn parse_reply(header: &[u8; OUT_HEADER_LEN], body: &[u8]) -> Result<InitReply> {
    let error = u32_at(header, 4).unwrap_or(0).cast_signed();
    if error != 0 {
        let source = std::io::Error::from_raw_os_error(error.wrapping_neg());
        return Err(Error::InitRefused(source));
    }
    let bad = |why: String| Error::BadReply {
        opcode: crate::frontend::fs::opcode::INIT,
        asked: 0,
        why,
    };
    let reply = parse_init(body).ok_or_else(|| bad(format!("{} bytes", body.len())))?;
    if reply.max_write > MAX_IO || reply.max_pages > MAX_PAGES {
        let (bytes, pages) = (reply.max_write, reply.max_pages);
        return Err(bad(format!(
            "{bytes} bytes in {pages} pages, a bridge takes 1 MiB"
        )));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_forwarded_is_taken_out() {
        let mut body = [0xff; 64];
        mask_request(&mut body);
        let flags = u64::from(u32_at(&body, IN_FLAGS).unwrap())
            | u64::from(u32_at(&body, IN_FLAGS2).unwrap()) << 32;
        assert_eq!(flags, !NOT_FORWARDED);
        assert!(
            body[..12]
                .iter()
                .chain(&body[20..])
                .all(|byte| *byte == 0xff)
        );
        // An old kernel's request ends before flags2.
        let mut short = [0xff; 16];
        mask_request(&mut short);
        assert_eq!(u32_at(&short, IN_FLAGS).unwrap() & (1 << 7), 0);
    }
}

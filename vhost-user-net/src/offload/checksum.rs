//! The internet checksum (RFC 1071).

/// Adds the words of `bytes` to a sum.
pub(super) fn sum(bytes: &[u8], start: u64) -> u64 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let words = pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)));
    let last = odd.first().map_or(0, |byte| u64::from(*byte) << 8);
    start + words.sum::<u64>() + last
}

/// The checksum that a sum comes to.
pub(super) fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// UDP means "no checksum" by zero, and 0xffff is the same number (RFC 768).
pub(super) fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

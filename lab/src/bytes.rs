//! Contents for tests.

use crate::Random;

/// Bytes that differ from seed to seed.
#[must_use]
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(random.number().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

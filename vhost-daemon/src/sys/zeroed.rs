//! Tables of zeroes that cost memory only where they are written.

use std::sync::atomic::AtomicU64;

/// `count` words of zero. The allocator takes large ones fresh from the kernel, which gives them pages
/// when they are first written.
pub fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    let words = Box::<[AtomicU64]>::new_zeroed_slice(count);
    // SAFETY: an atomic integer whose bytes are all zero is a valid zero.
    unsafe { words.assume_init() }
}

//! Host memory at an alignment of choice.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Zeroed bytes whose address is a multiple of an alignment: what direct I/O asks for.
#[derive(Debug)]
pub(super) struct AlignedBytes {
    start: NonNull<u8>,
    layout: Layout,
}

impl AlignedBytes {
    /// `None` when `len` is zero, `align` no power of two, or memory is short.
    pub(super) fn zeroed(len: usize, align: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len, align)
            .ok()
            .filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }

    /// Address of byte `at`, for an iovec; the caller stays inside the bytes.
    pub(super) fn address(&self, at: usize) -> *mut libc::c_void {
        debug_assert!(at < self.layout.size());
        self.start.as_ptr().wrapping_byte_add(at).cast()
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

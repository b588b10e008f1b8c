//! glibc's allocator, told that memory matters more here than speed.

/// One arena for all threads, and memory goes back to the kernel early (mallopt(3)).
pub(crate) fn be_small() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, 64 * 1024),
        (libc::M_MMAP_THRESHOLD, 64 * 1024),
    ] {
        // SAFETY: mallopt takes two integers and refuses what it does not know.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what was freed, after something that took much.
pub(crate) fn trim() {
    // SAFETY: malloc_trim takes an integer and locks what it walks.
    unsafe { libc::malloc_trim(0) };
}

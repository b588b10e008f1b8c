//! Attributes of the calling thread.

use std::ffi::CStr;

/// Names the calling thread, as `top -H` and the log show it. At most 15 bytes are kept.
pub fn name_current_thread(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, which a CStr is, and keeps no pointer.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
    }
}

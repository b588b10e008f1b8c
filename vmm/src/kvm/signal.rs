//! The signal that brings a processor's thread out of the guest. Its handler does nothing: being
//! interrupted is all that is wanted.

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::KvmError;

/// Sent to processors' threads only.
pub(super) fn number() -> i32 {
    SIGRTMIN()
}

pub(super) fn set_up() -> Result<(), KvmError> {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(number(), nothing).map_err(KvmError::Signal)
}

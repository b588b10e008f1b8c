//! Users and groups of the whole process, while it has one thread.

/// In a user namespace: becomes its user 0 and group 0, where it has such. What is not mapped stays
/// what it is.
pub(crate) fn become_root_if_mapped() {
    // SAFETY: takes integers only; fails where group 0 is not mapped.
    unsafe { libc::setresgid(0, 0, 0) };
    // SAFETY: as above.
    unsafe { libc::setresuid(0, 0, 0) };
}

/// Gives up the supplementary groups: they are not the guest's users'. Where the kernel does not let
/// them go (an ordinary user's, or some user namespaces), they stay.
pub(crate) fn leave_groups() {
    // SAFETY: no group is read from the pointer.
    if unsafe { libc::setgroups(0, std::ptr::null()) } != 0 {
        tracing::debug!("the supplementary groups stay");
    }
}

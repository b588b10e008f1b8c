//! The host's groups by name.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ptr;

/// Room for one group's entry, its members included: as much as getgrnam_r(3) suggests, and more.
const ROOM: usize = 64 << 10;

/// The id of the group called `name`, wherever the system keeps its groups.
pub(crate) fn group_named(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut room = vec![0; ROOM];
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut found = ptr::null_mut();
    // SAFETY: the name is a C string, entry and room are ours and as large as said, and all are only
    // used during the call; `found` then is null or points to the entry.
    let result = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            room.as_mut_ptr(),
            room.len(),
            &raw mut found,
        )
    };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call has found the group and filled the entry in.
    Some(unsafe { entry.assume_init() }.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(group_named("root"), Some(0));
        assert_eq!(group_named("no-such-group"), None);
        assert_eq!(group_named("nul\0"), None);
    }
}

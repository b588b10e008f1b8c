//! Acting as a guest's user, on one thread and for one system call.
//!
//! The raw system calls change the calling thread only (the C library's wrappers change them
//! all). File system user and group decide whom a new file belongs to; everything else keeps the
//! daemon's own. credentials(7), capabilities(7).

use std::cell::Cell;
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

thread_local! {
    /// The thread has no supplementary groups of the daemon's any more.
    static LEFT_GROUPS: Cell<bool> = const { Cell::new(false) };
    /// The daemon's own uid and gid, to skip switches that change nothing.
    static OWN: Cell<Option<(u32, u32)>> = const { Cell::new(None) };
    /// The capabilities that go with any user but the superuser.
    static AS_ORDINARY: Cell<Option<CapabilitySets>> = const { Cell::new(None) };
}

/// Holds other credentials on the calling thread; dropping it takes the daemon's back.
pub(crate) struct CredentialsGuard {
    own: (u32, u32),
    groups: bool,
}

/// Makes the calling thread create files as `uid` and `gid`, a member of `groups`. `None`: those
/// are the daemon's already.
///
/// The guest's kernel has checked the caller's permissions (virtio-fs always mounts with
/// `default_permissions`), so `CAP_DAC_OVERRIDE` stays.
pub(crate) fn act_as(uid: u32, gid: u32, groups: &[u32]) -> io::Result<Option<CredentialsGuard>> {
    let own = own_identity();
    if own == (uid, gid) && groups.is_empty() {
        return Ok(None);
    }
    // From here on the guard undoes what was done, also when a later step fails.
    let guard = CredentialsGuard {
        own,
        groups: !groups.is_empty(),
    };
    if guard.groups {
        set_groups(groups)?;
    } else {
        leave_own_groups();
    }
    set_fs_gid(gid);
    set_fs_uid(uid);
    // Neither call reports failure; asking with an impossible value tells what is set.
    if set_fs_uid(u32::MAX) != uid || set_fs_gid(u32::MAX) != gid {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    if uid != 0 {
        override_permissions()?;
    }
    Ok(Some(guard))
}

/// Takes `CAP_DAC_OVERRIDE` back, which the kernel takes with file system user 0, together with all
/// that decides whom files belong to.
fn override_permissions() -> io::Result<()> {
    let sets = match AS_ORDINARY.get() {
        Some(sets) => sets,
        None => {
            let mut sets = capabilities(None)?;
            sets.effective |= CapabilitySet::DAC_OVERRIDE & sets.permitted;
            AS_ORDINARY.set(Some(sets));
            sets
        }
    };
    Ok(set_capabilities(None, sets)?)
}

/// The daemon's supplementary groups are not the guest's user's. Where the kernel does not let them go
/// (in some user namespaces), they stay.
fn leave_own_groups() {
    if !LEFT_GROUPS.replace(true) && set_groups(&[]).is_err() {
        tracing::debug!("the daemon's supplementary groups stay");
    }
}

impl Drop for CredentialsGuard {
    fn drop(&mut self) {
        // The kernel gives the file system capabilities back with file system user 0.
        set_fs_uid(self.own.0);
        set_fs_gid(self.own.1);
        if self.groups && set_groups(&[]).is_err() {
            tracing::error!("supplementary groups could not be dropped");
        }
    }
}

/// Makes the calling thread an ordinary member of a group; dropping it undoes that.
///
/// With `CAP_FSETID` the host's kernel would keep set-user-ID and set-group-ID bits when a file's
/// content changes.
pub(crate) struct FsetidGuard {
    own_gid: u32,
}

/// Takes `CAP_FSETID` from the calling thread and makes it a member of `group`; `None` when it
/// never had the capability.
///
/// Membership matters: a set-group-ID bit without the group's execute bit stays for members only,
/// and by `FUSE_HANDLE_KILLPRIV_V2` it stays.
pub(crate) fn without_fsetid(group: u32) -> io::Result<Option<FsetidGuard>> {
    let mut sets = capabilities(None)?;
    if !sets.effective.contains(CapabilitySet::FSETID) {
        return Ok(None);
    }
    sets.effective.remove(CapabilitySet::FSETID);
    set_capabilities(None, sets)?;
    let guard = FsetidGuard {
        own_gid: own_identity().1,
    };
    set_fs_gid(group);
    Ok(Some(guard))
}

impl Drop for FsetidGuard {
    fn drop(&mut self) {
        set_fs_gid(self.own_gid);
        if let Err(error) = raise_fsetid() {
            tracing::error!(%error, "CAP_FSETID could not be raised again");
        }
    }
}

fn raise_fsetid() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective |= CapabilitySet::FSETID & sets.permitted;
    Ok(set_capabilities(None, sets)?)
}

fn own_identity() -> (u32, u32) {
    OWN.get().unwrap_or_else(|| {
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        OWN.set(Some(own));
        own
    })
}

/// setfsuid(2); returns the former one.
fn set_fs_uid(uid: u32) -> u32 {
    // SAFETY: takes and returns an integer, and changes only the calling thread's credentials.
    id_from(unsafe { libc::syscall(libc::SYS_setfsuid, uid) })
}

/// setfsgid(2); returns the former one.
fn set_fs_gid(gid: u32) -> u32 {
    // SAFETY: as for `set_fs_uid`.
    id_from(unsafe { libc::syscall(libc::SYS_setfsgid, gid) })
}

fn id_from(result: libc::c_long) -> u32 {
    u32::try_from(result).unwrap_or(u32::MAX)
}

/// setgroups(2) for the calling thread.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live slice, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

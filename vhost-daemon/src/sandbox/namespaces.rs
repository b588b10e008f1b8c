//! A view of the host's files with nothing but one directory in it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::thread::UnshareFlags;

use super::SandboxError;
use super::sys;

fn step(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> SandboxError {
    move |errno| failed(step)(errno.into())
}

fn failed(step: &'static str) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |source| SandboxError::Step {
        mode: "namespace",
        step,
        source,
    }
}

/// Leaves the host's network and IPC objects.
pub(super) fn leave_network() -> Result<(), SandboxError> {
    sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC).map_err(SandboxError::Network)
}

/// Makes `directory` the root of all that is mounted, in a mount namespace of its own, and leaves
/// network and IPC objects. Returns /proc/self/fd as a mount of its own, which is attached to
/// nothing: there is no `..` out of it.
///
/// What the host mounts under the directory later appears in it, and nothing comes back.
pub(super) fn see_only(directory: &Path, read_only: bool) -> Result<OwnedFd, SandboxError> {
    let network = UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    sys::unshare(network).map_err(failed("make network and IPC namespaces"))?;
    sys::unshare(UnshareFlags::NEWNS).map_err(failed("make a mount namespace"))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(step("separate its mounts from the host's"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let descriptors =
        open_tree(CWD, "/proc/self/fd", flags).map_err(step("clone /proc/self/fd"))?;
    let recursive = flags | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, directory, recursive).map_err(step("clone the shared directory"))?;
    sys::restrict_mounts(&tree, read_only).map_err(failed("restrict the shared directory"))?;
    // Onto the root itself: a place that is always there.
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, "/", empty).map_err(step("mount the shared directory"))?;
    rustix::process::fchdir(&tree).map_err(step("enter the shared directory"))?;
    // pivot_root(2), "pivot_root(., .)": the old root comes to lie on the new one, and goes.
    rustix::process::pivot_root(".", ".").map_err(step("pivot_root into the shared directory"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("unmount the host's root"))?;
    rustix::process::chdir("/").map_err(step("enter its root"))?;
    Ok(descriptors)
}

/// Makes `directory` the root directory.
pub(super) fn change_root(directory: &Path) -> Result<(), SandboxError> {
    let failed = |step| {
        move |errno: rustix::io::Errno| SandboxError::Step {
            mode: "chroot",
            step,
            source: errno.into(),
        }
    };
    rustix::process::chroot(directory).map_err(failed("chroot into the shared directory"))?;
    rustix::process::chdir("/").map_err(failed("enter its root"))
}

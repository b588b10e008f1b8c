//! Mounts what programs expect to find, and makes another directory the root.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use ringside_protocol::MODULES_DIR;
use rustix::mount::{MountFlags, mount, mount_move};

/// Mounts of [`mount_kernel_file_systems`], to be moved into the new root later.
pub const MOVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Mounts `/proc`, `/sys` and `/dev` in the initramfs.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_kernel_file_systems() -> Result<()> {
    let closed = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    attach("proc", "/proc", "proc", closed, None)?;
    attach("sysfs", "/sys", "sysfs", closed, None)?;
    attach(
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::NOSUID,
        Some(c"mode=755"),
    )
}

/// The classic way (switch_root(8)): the initramfs cannot be unmounted, so the root is moved over it.
///
/// # Errors
/// When `to` is no mount point.
pub fn switch_root(to: &str) -> io::Result<()> {
    std::env::set_current_dir(to)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// The initramfs lives in memory: what is no longer needed goes. A leftover only costs memory.
pub fn free_initramfs() {
    let _ = fs::remove_dir_all(MODULES_DIR);
    let _ = fs::remove_file("/init");
}

/// Mounts the rest of what programs expect of a Linux machine.
///
/// # Errors
/// When the kernel refuses, or a folder is not there and cannot be made.
pub fn mount_process_file_systems() -> Result<()> {
    let closed = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let data = MountFlags::NOSUID | MountFlags::NODEV;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    attach(
        "devpts",
        "/dev/pts",
        "devpts",
        terminals,
        Some(c"gid=5,mode=620,ptmxmode=666"),
    )?;
    attach("shm", "/dev/shm", "tmpfs", data, Some(c"mode=1777"))?;
    attach("run", "/run", "tmpfs", data, Some(c"mode=755"))?;
    attach("cgroup2", "/sys/fs/cgroup", "cgroup2", closed, None)?;
    let links = [
        ("fd", ""),
        ("stdin", "/0"),
        ("stdout", "/1"),
        ("stderr", "/2"),
    ];
    for (name, fd) in links {
        std::os::unix::fs::symlink(format!("/proc/self/fd{fd}"), format!("/dev/{name}"))
            .with_context(|| format!("cannot make /dev/{name}"))?;
    }
    Ok(())
}

/// Mounts a file system, on a directory that it makes where there is none.
///
/// # Errors
/// When the kernel refuses, or the directory cannot be made.
pub fn attach(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: Option<&CStr>,
) -> Result<()> {
    ensure_directory(target)?;
    mount(source, target, kind, flags, data)
        .with_context(|| format!("cannot mount {kind} {source:?} on {target}"))
}

fn ensure_directory(path: &str) -> Result<()> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs::create_dir(path)
        .with_context(|| format!("the root file system has no folder {path} and none can be made"))
}

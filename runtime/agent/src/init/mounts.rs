//! Mounts what a command expects to find and makes the asked-for root the root.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use ringside_protocol::{CONFIG_PATH, Directory, MODULES_DIR, Root};
use rustix::mount::{MountFlags, mount, mount_move};

use super::disks;

const NEW_ROOT: &str = "/sysroot";

/// Mounts that the init itself needs, moved into the new root later.
pub(crate) const MOVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Mounts `/proc`, `/sys` and `/dev` in the initramfs.
pub(crate) fn mount_kernel_file_systems() -> Result<()> {
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

/// Mounts the root file system and changes into it for good.
pub(crate) fn enter_root(root: &Root) -> Result<()> {
    fs::create_dir(NEW_ROOT).context("cannot make /sysroot in the initramfs")?;
    match root {
        Root::Virtiofs {
            tag,
            overlay: false,
        } => attach(tag, NEW_ROOT, "virtiofs", MountFlags::empty(), None)?,
        Root::Virtiofs { tag, overlay: true } => attach_overlay(tag)?,
        Root::Block(block) => {
            let device = disks::find(&block.serial)?;
            let flags = if block.read_only {
                MountFlags::RDONLY
            } else {
                MountFlags::empty()
            };
            attach(&device.to_string_lossy(), NEW_ROOT, "ext4", flags, None)?;
        }
    }
    free_initramfs();
    for point in MOVED {
        let target = format!("{NEW_ROOT}{point}");
        ensure_directory(&target)?;
        mount_move(point, &target).with_context(|| format!("cannot move {point} into the root"))?;
    }
    switch_root(NEW_ROOT).context("cannot change into the root file system")
}

/// The device below, a file system in memory above. Both are mounted in the initramfs and stay
/// there, out of reach of the command.
fn attach_overlay(tag: &str) -> Result<()> {
    attach(tag, "/lower", "virtiofs", MountFlags::RDONLY, None)?;
    attach("overlay", "/changes", "tmpfs", MountFlags::empty(), None)?;
    for folder in ["/changes/upper", "/changes/work"] {
        fs::create_dir(folder).with_context(|| format!("cannot make {folder}"))?;
    }
    let layers = c"lowerdir=/lower,upperdir=/changes/upper,workdir=/changes/work";
    attach(
        "overlay",
        NEW_ROOT,
        "overlay",
        MountFlags::empty(),
        Some(layers),
    )
}

/// Mounts further directories of the host into the root.
pub(crate) fn mount_directories(directories: &[Directory]) -> Result<()> {
    directories.iter().try_for_each(|directory| {
        let path = Path::new(directory.path.as_os_str());
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let (flags, tag) = (MountFlags::empty(), &directory.tag);
        mount(tag, path, "virtiofs", flags, None)
            .with_context(|| format!("cannot mount virtiofs {tag:?} on {}", path.display()))
    })
}

/// The classic way (switch_root(8)): the initramfs cannot be unmounted, so the root is moved over it.
pub(crate) fn switch_root(to: &str) -> io::Result<()> {
    std::env::set_current_dir(to)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// The initramfs lives in memory: what is no longer needed goes. A leftover only costs memory.
pub(crate) fn free_initramfs() {
    let _ = fs::remove_dir_all(MODULES_DIR);
    let _ = fs::remove_file(CONFIG_PATH);
    let _ = fs::remove_file("/init");
}

/// Mounts the rest of what programs expect of a Linux machine.
pub(crate) fn mount_process_file_systems() -> Result<()> {
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
pub(crate) fn attach(
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

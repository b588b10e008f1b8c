//! Makes of a bare kernel a machine that containers can be made on.

use std::fs;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount_move};

use super::{cgroup, layout};
use crate::init;

const NEW_ROOT: &str = "/newroot";

/// Directories of the agent's root, beside those that something is mounted on.
const DIRECTORIES: [&str; 4] = ["/tmp", "/etc", "/root", "/var"];

/// Loads the modules, mounts what there is to mount, and moves onto a file system that can be left.
///
/// libcontainer leaves the root by pivot_root(2), which the initramfs's does not allow. So the root is a
/// tmpfs, moved over the initramfs as switch_root(8) does it. This program needs no copy there: its file
/// stays while it runs, and `/proc/self/exe` leads to it.
pub(super) fn boot() -> Result<()> {
    init::mount_kernel_file_systems().context("cannot mount the kernel's file systems")?;
    init::load_modules()?;
    fs::create_dir(NEW_ROOT).context("cannot make /newroot in the initramfs")?;
    init::attach(
        "root",
        NEW_ROOT,
        "tmpfs",
        MountFlags::NODEV,
        Some(c"mode=755"),
    )?;
    init::free_initramfs();
    for point in init::MOVED {
        let target = format!("{NEW_ROOT}{point}");
        fs::create_dir(&target).with_context(|| format!("cannot make {target}"))?;
        mount_move(point, &target).with_context(|| format!("cannot move {point} into the root"))?;
    }
    init::switch_root(NEW_ROOT).context("cannot change into the root file system")?;
    init::mount_process_file_systems()?;
    cgroup::prepare().context("cannot hand down the cgroup controllers")?;
    for path in DIRECTORIES.iter().chain(&layout::DIRECTORIES) {
        fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
    }
    Ok(())
}

//! The host's files as the machine has them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lab_protocol::{CONFIG_PATH, Directory};
use ringside_agent::init;
use rustix::mount::{MountFlags, mount, mount_move};

const NEW_ROOT: &str = "/sysroot";

/// Mounts the root file system and changes into it for good: the device with this tag below, a file
/// system in memory above. Both stay in the initramfs, out of reach of the command.
pub(crate) fn enter(tag: &str) -> Result<()> {
    init::attach(tag, "/lower", "virtiofs", MountFlags::RDONLY, None)?;
    init::attach("overlay", "/changes", "tmpfs", MountFlags::empty(), None)?;
    for folder in [NEW_ROOT, "/changes/upper", "/changes/work"] {
        fs::create_dir(folder).with_context(|| format!("cannot make {folder}"))?;
    }
    let layers = c"lowerdir=/lower,upperdir=/changes/upper,workdir=/changes/work";
    let flags = MountFlags::empty();
    init::attach("overlay", NEW_ROOT, "overlay", flags, Some(layers))?;
    init::free_initramfs();
    // It only costs memory.
    let _ = fs::remove_file(CONFIG_PATH);
    for point in init::MOVED {
        let target = format!("{NEW_ROOT}{point}");
        fs::create_dir_all(&target).with_context(|| format!("cannot make {target}"))?;
        mount_move(point, &target).with_context(|| format!("cannot move {point} into the root"))?;
    }
    init::switch_root(NEW_ROOT).context("cannot change into the root file system")
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

//! What a QEMU guest boots: busybox, modules and the test's script.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use guest_image::cpio::Archive;
use guest_image::{Cache, Flavour, Kernel};

use super::running::EXIT_MARK;
use super::{Error, initramfs};
use crate::{need, scratch::Scratch};

/// Always loaded, without dependencies: devices by PCI, the port for output, file systems.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtiofs",
    "crc32c_intel",
    "ext4",
];

/// A file that the test wants in the guest.
#[derive(Clone, Debug)]
pub(super) struct ExtraFile {
    pub(super) path: String,
    pub(super) permissions: u32,
    pub(super) content: Vec<u8>,
}

/// Kernel and initramfs, ready for `-kernel` and `-initrd`.
pub(super) struct Boot {
    pub(super) vmlinux: PathBuf,
    pub(super) initramfs: PathBuf,
}

pub(super) fn build(
    flavour: Flavour,
    script: &str,
    modules: &[String],
    files: &[ExtraFile],
    scratch: &Scratch,
) -> Result<Boot, Error> {
    let cache = Cache::open_default()?;
    let kernel = Kernel::obtain_flavour(&cache, flavour)?;
    let wanted: Vec<&str> = MODULES
        .iter()
        .copied()
        .chain(modules.iter().map(String::as_str))
        .collect();
    let mut archive = Archive::new();
    initramfs::skeleton(&mut archive)?;
    let mut order = String::new();
    for path in kernel.modules()?.load_order(&wanted)? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        archive.file(&format!("/modules/{name}"), 0o600, &read(&path)?)?;
        order += &format!("{name}\n");
    }
    archive.file("/modules/load-order", 0o600, order.as_bytes())?;
    archive.file("/init", 0o755, init().as_bytes())?;
    archive.file("/script", 0o755, script.as_bytes())?;
    for directory in parents(files) {
        archive.directory(directory, 0o755);
    }
    for file in files {
        archive.file(&file.path, file.permissions, &file.content)?;
    }
    let written = scratch.file("initramfs", archive.finish());
    let initramfs = written.map_err(Error::io("write the guest's initramfs"))?;
    Ok(Boot {
        vmlinux: kernel.vmlinux(&cache)?,
        initramfs,
    })
}

fn skeleton(archive: &mut Archive) -> Result<(), Error> {
    for directory in [
        "/bin", "/dev", "/proc", "/sys", "/run", "/tmp", "/mnt", "/modules",
    ] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("/dev/console", 0o600, 5, 1);
    archive.file("/bin/busybox", 0o755, &read(&need::program("busybox")?)?)?;
    archive.symlink("/bin/sh", "busybox")?;
    Ok(())
}

/// The directories that files are in, outer ones first. The kernel passes over those there are already.
fn parents(files: &[ExtraFile]) -> BTreeSet<&str> {
    let above = |file: &'_ ExtraFile| {
        let slashes = file.path.match_indices('/').skip(1);
        slashes.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let named = files
        .iter()
        .flat_map(|file| above(file).into_iter().map(|at| &file.path[..at]));
    named.collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::io("read a file for the guest's initramfs"))
}

/// PID 1. The port takes only one open at a time, so it becomes a descriptor that the script
/// inherits.
fn init() -> String {
    format!(
        r#"#!/bin/sh
export PATH=/bin HOME=/ TERM=dumb
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox --install -s /bin
for module in $(cat /modules/load-order); do
    insmod /modules/$module || echo "lab: cannot load $module"
done
port=$(ls /dev/vport*p1 | head -n1)
exec 3<>"$port"
sh /script <&3 >&3 2>&3
printf '{EXIT_MARK}%d\n' $? >&3
sync
umount -a -r 2>/dev/null
reboot -f
"#
    )
}

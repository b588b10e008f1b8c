//! What is mounted in the guest before a container sees it.

pub(super) mod options;
mod superblock;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ringside_protocol::agent::{Storage, storage::Source};
use rustix::mount::MountPropagationFlags;
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount,
    unmount as detach,
};

use self::options::Options;
use super::error::{Error, Result};
use crate::init;

/// Longest serial of a virtio-blk device, in bytes (virtio 1.2, section 5.2.6).
const LONGEST_SERIAL: usize = 20;

/// Mounts one; returns where.
pub(super) fn mount_storage(storage: &Storage) -> Result<String> {
    let point = storage.mount_point.clone();
    if !Path::new(&point).is_absolute() {
        return Err(Error::invalid(
            "storages.mount_point",
            format!("{point:?} is not an absolute path"),
        ));
    }
    let options =
        Options::parse(&storage.options).map_err(|why| Error::invalid("storages.options", why))?;
    match &storage.source {
        Some(Source::Virtiofs(tag)) => file_system(tag, &point, "virtiofs", &options)?,
        Some(Source::BlockSerial(serial)) => block(serial, storage, &options)?,
        Some(Source::Tmpfs(_)) => file_system("tmpfs", &point, "tmpfs", &options)?,
        Some(Source::Overlay(_)) => overlay(storage, options)?,
        Some(Source::Bind(source)) => bind(source, &point, &options)?,
        _ => {
            return Err(Error::invalid(
                "storages.source",
                "says nothing this agent knows",
            ));
        }
    }
    Ok(point)
}

/// Mounts one that is the whole pod's, unless it is there.
pub(super) fn mount_for_pod(storage: &Storage) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    // Names that the host chooses have no blanks, which would be written otherwise there.
    let is_there = |line: &str| line.split(' ').nth(4) == Some(&storage.mount_point);
    if table.lines().any(is_there) {
        return Ok(());
    }
    mount_storage(storage).map(drop)
}

/// Major and minor number of the disk with this serial.
pub(super) fn disk_numbers(serial: &str) -> Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let device = init::find_disk(serial)?;
    let number = fs::metadata(&device)
        .with_context(|| format!("cannot find {}", device.display()))?
        .rdev();
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Takes one away; whoever still uses it keeps it until then.
pub(super) fn unmount(point: &str) {
    if let Err(error) = detach(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        && error != rustix::io::Errno::INVAL
    {
        eprintln!("ringside-agent: cannot unmount {point}: {error}");
    }
}

fn file_system(source: &str, point: &str, kind: &str, options: &Options) -> Result<()> {
    make_directory(point)?;
    mount(
        source,
        point,
        kind,
        options.flags,
        options.data().as_deref(),
    )
    .with_context(|| format!("cannot mount {kind} {source:?} on {point}"))?;
    Ok(())
}

fn make_directory(point: &str) -> Result<()> {
    fs::create_dir_all(point).with_context(|| format!("cannot make the directory {point}"))?;
    Ok(())
}

fn block(serial: &str, storage: &Storage, options: &Options) -> Result<()> {
    if serial.is_empty() || serial.len() > LONGEST_SERIAL {
        let why = format!("{serial:?} is not 1 to {LONGEST_SERIAL} bytes");
        return Err(Error::invalid("storages.block_serial", why));
    }
    let device = init::find_disk(serial)?;
    let (point, kind) = (&storage.mount_point, storage.filesystem.as_str());
    match kind {
        "none" => bind(&device.to_string_lossy(), point, options),
        "" => {
            let found = superblock::file_system(&device)
                .with_context(|| format!("cannot read {}", device.display()))?
                .ok_or_else(|| {
                    anyhow!("disk {serial:?} holds no file system this agent knows: name it")
                })?;
            file_system(&device.to_string_lossy(), point, found, options)
        }
        kind => file_system(&device.to_string_lossy(), point, kind, options),
    }
}

fn overlay(storage: &Storage, mut options: Options) -> Result<()> {
    if storage.lower.is_empty() {
        return Err(Error::invalid(
            "storages.lower",
            "an overlay needs one directory at least",
        ));
    }
    let lower: Vec<_> = storage.lower.iter().map(|path| escaped(path)).collect();
    options.add(&format!("lowerdir={}", lower.join(":")));
    if !storage.upper.is_empty() {
        for path in [&storage.upper, &storage.work] {
            make_directory(path)?;
        }
        options.add(&format!("upperdir={}", escaped(&storage.upper)));
        options.add(&format!("workdir={}", escaped(&storage.work)));
    }
    file_system("overlay", &storage.mount_point, "overlay", &options)
}

/// As overlayfs reads paths: a backslash before what would end one.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,")
}

fn bind(source: &str, point: &str, options: &Options) -> Result<()> {
    let is_directory = fs::metadata(source)
        .with_context(|| format!("cannot bind {source:?}"))?
        .is_dir();
    if is_directory {
        make_directory(point)?;
    } else if !Path::new(point).exists() {
        let parent = Path::new(point)
            .parent()
            .map_or_else(PathBuf::new, Path::to_owned);
        make_directory(&parent.to_string_lossy())?;
        fs::File::create(point).with_context(|| format!("cannot make the file {point}"))?;
    }
    let made = || {
        mount_bind_recursive(source, point)?;
        mount_change(point, MountPropagationFlags::PRIVATE)?;
        if options.flags == MountFlags::empty() {
            return Ok(());
        }
        mount_remount(point, options.flags | MountFlags::BIND, "")
    };
    made().with_context(|| format!("cannot bind {source:?} to {point}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_paths_may_hold_anything() {
        assert_eq!(escaped("/a:b,c\\d"), "/a\\:b\\,c\\\\d");
    }

    #[test]
    fn requests_that_make_no_sense_name_the_field() {
        let refused = |change: fn(&mut Storage)| {
            let mut storage = Storage::new();
            storage.mount_point = "/nowhere".to_owned();
            change(&mut storage);
            mount_storage(&storage).unwrap_err().to_string()
        };
        assert!(refused(|_| {}).starts_with("storages.source:"));
        assert!(refused(|it| it.mount_point = "x".to_owned()).starts_with("storages.mount_point:"));
        assert!(
            refused(|it| it.set_block_serial("x".repeat(21))).starts_with("storages.block_serial:")
        );
        assert!(refused(|it| it.set_overlay(true)).starts_with("storages.lower:"));
        assert!(refused(|it| it.options.push("a\0".to_owned())).starts_with("storages.options:"));
    }
}

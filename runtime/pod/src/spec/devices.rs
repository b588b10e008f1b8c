//! Raw block volumes: disks of the host that become the guest's.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

use super::SpecError;

/// A disk of the host that a container gets as a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockVolume {
    /// Where the container has it.
    pub path: PathBuf,
    /// The host's device node.
    pub device: PathBuf,
    /// No rule lets the container write.
    pub read_only: bool,
}

/// Takes the block devices that nobody named out of `linux.devices`; returns the others. An engine
/// names a volume by a rule of its own; to a privileged container it lists all the host has, and
/// means by that "no limits", which the guest's own devices are.
pub(super) fn volumes(spec: &mut Spec) -> Result<Vec<BlockVolume>, SpecError> {
    let linux = spec.linux_mut().as_mut().ok_or(SpecError::NoLinux)?;
    let resources = linux.resources().as_ref();
    let rules = resources.and_then(|it| it.devices().clone());
    let rules = rules.unwrap_or_default();
    let Some(devices) = linux.devices_mut() else {
        return Ok(Vec::new());
    };
    devices.retain(|it| it.typ() != LinuxDeviceType::B || naming(it, &rules).is_some());
    let disks = devices.iter().filter(|it| it.typ() == LinuxDeviceType::B);
    disks
        .map(|it| {
            let rule = naming(it, &rules);
            let access = rule.and_then(|rule| rule.access().clone());
            Ok(BlockVolume {
                path: it.path().clone(),
                device: node(it)?,
                read_only: access.is_some_and(|access| !access.contains('w')),
            })
        })
        .collect()
}

/// The rule that lets a container have just this device.
fn naming<'a>(
    device: &LinuxDevice,
    rules: &'a [LinuxDeviceCgroup],
) -> Option<&'a LinuxDeviceCgroup> {
    rules.iter().find(|rule| {
        let numbers = (rule.major(), rule.minor());
        rule.allow()
            && rule.typ() == Some(LinuxDeviceType::B)
            && numbers == (Some(device.major()), Some(device.minor()))
    })
}

/// The host's node of these numbers (sysfs, `Documentation/ABI/stable/sysfs-block`).
fn node(device: &LinuxDevice) -> Result<PathBuf, SpecError> {
    let (major, minor) = (device.major(), device.minor());
    let missing = || SpecError::BlockDevice(device.path().clone(), major, minor);
    let facts = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"));
    let facts = facts.map_err(|_| missing())?;
    let name = facts.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let path = Path::new("/dev").join(name.ok_or_else(missing)?);
    let is_it = fs::metadata(&path).is_ok_and(|it| {
        let number = it.rdev();
        let numbers = (rustix::fs::major(number), rustix::fs::minor(number));
        it.file_type().is_block_device() && (numbers.0.into(), numbers.1.into()) == (major, minor)
    });
    is_it.then_some(path).ok_or_else(missing)
}

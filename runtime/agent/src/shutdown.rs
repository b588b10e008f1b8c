//! Leaves every disk clean and switches the machine off.

use std::fs;
use std::process::ExitCode;

use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::sys;

/// File systems without anything to write back.
const KERNEL_ONLY: [&str; 6] = ["proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "cgroup2"];

/// Kills every process but this one, which is PID 1.
pub fn end_processes() {
    sys::kill_everything_else();
}

/// Unmounts what the command mounted and leaves the root file system clean. No process but this
/// one is left.
pub fn write_back() {
    rustix::fs::sync();
    for point in mount_points().iter().rev().filter(|point| *point != "/") {
        if let Err(error) = unmount(point.as_str(), UnmountFlags::empty()) {
            eprintln!("ringside-agent: cannot unmount {point}: {error}");
        }
    }
    // virtiofs holds nothing back after sync; for ext4 this marks the file system clean.
    if let Err(error) = mount_remount("/", MountFlags::RDONLY, "") {
        eprintln!("ringside-agent: cannot make / read-only: {error}");
    }
}

/// Mount points of disk file systems, in the order they were mounted (proc_pid_mountinfo(5)).
fn mount_points() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(disk_mount_point).collect()
}

fn disk_mount_point(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let kind = right.split(' ').next()?;
    let point = left.split(' ').nth(4)?;
    // Blanks in a path are written as octal escapes.
    let point = point
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\");
    (!KERNEL_ONLY.contains(&kind)).then_some(point)
}

/// Switches the machine off. It returns only where it cannot.
pub fn power_off() -> ExitCode {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("ringside-agent: cannot switch the machine off: {error}");
    }
    // PID 1's end panics the kernel, and that ends the machine too.
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disk_file_systems_are_unmounted() {
        let ext4 = r"36 35 98:0 / /mnt\040x rw,noatime master:1 - ext4 /dev/vda rw";
        assert_eq!(disk_mount_point(ext4).as_deref(), Some("/mnt x"));
        assert_eq!(
            disk_mount_point("22 1 0:20 / /proc rw - proc proc rw"),
            None
        );
        assert_eq!(disk_mount_point("garbage"), None);
    }
}

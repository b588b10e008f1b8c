//! Disks that a pod's machine has from its start.

use std::path::PathBuf;

use tokio::process::Command;

use crate::PodError;
use crate::directory::PodDirectory;
use crate::hypervisor::DiskDevice;
use crate::parts::{Parts, Role};
use crate::programs;

/// Queues of a disk: one for each processor up to this many.
const MOST_QUEUES: u8 = 4;

/// Longest serial, in bytes (virtio 1.2, section 5.2.6).
const LONGEST_SERIAL: usize = 20;

/// A disk, served by a vhost-user-blk daemon of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDisk {
    /// What the guest finds it by: 1 to 20 letters, digits, `-` and `_`, unlike any other of the pod's.
    pub serial: String,
    /// The raw image or block device.
    pub image: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
}

impl PodDisk {
    /// Starts its daemon, `vhost-user-blk-SERIAL`.
    pub(crate) fn start(
        &self,
        parts: &Parts,
        directory: &PodDirectory,
        cpus: u8,
    ) -> Result<DiskDevice, PodError> {
        let serial = &self.serial;
        if !is_serial(serial) {
            return Err(PodError::Serial(serial.clone()));
        }
        let queues = cpus.clamp(1, MOST_QUEUES);
        let socket = directory.socket(&format!("blk-{serial}.sock"))?;
        let mut command = Command::new(programs::BLOCK.find()?);
        command.arg("--socket-path").arg(&socket);
        command.arg("--blk-file").arg(&self.image);
        command.args(["--serial", serial, "--queues", &queues.to_string()]);
        if self.read_only {
            command.arg("--read-only");
        }
        let name = format!("vhost-user-blk-{serial}");
        parts.start(&name, command, &[], Role::Daemon)?;
        Ok(DiskDevice { socket, queues })
    }
}

fn is_serial(serial: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=LONGEST_SERIAL).contains(&serial.len()) && serial.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_what_the_device_can_say_and_a_file_can_be_called() {
        assert!(is_serial("root") && is_serial(&"x".repeat(20)));
        for bad in ["", "a/b", "a b", ".", &"x".repeat(21)] {
            assert!(!is_serial(bad), "{bad:?}");
        }
    }
}

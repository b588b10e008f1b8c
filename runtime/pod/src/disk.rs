//! Disks that a pod's machine has from its start.

use std::path::PathBuf;

use crate::PodError;
use crate::daemons::Daemons;
use crate::hypervisor::DiskDevice;
use crate::parts::Role;
use crate::programs;

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
    /// The name of the part that serves the disk of this serial.
    pub(crate) fn part(serial: &str) -> String {
        format!("vhost-user-blk-{serial}")
    }

    /// Starts its daemon, `vhost-user-blk-SERIAL`.
    pub(crate) fn start(&self, daemons: Daemons<'_>, role: Role) -> Result<DiskDevice, PodError> {
        let serial = &self.serial;
        if !is_serial(serial) {
            return Err(PodError::Serial(serial.clone()));
        }
        let block = &daemons.config.block;
        let name = format!("blk-{serial}");
        let program = daemons.config.programs.vhost_user_blk.as_deref();
        let part = Self::part(serial);
        let (mut command, socket) =
            daemons.daemon(programs::BLOCK, program, &name, (&part, serial))?;
        command.arg("--blk-file").arg(&self.image);
        // A disk's bytes are whatever the guest writes: they must not decide what they are read as.
        command.args(["--format", "raw", "--serial", serial]);
        let queues = block.queues.get();
        command.args(["--queues", &queues.to_string()]);
        command.args(["--discard", if block.discard { "on" } else { "off" }]);
        if block.direct {
            command.arg("--direct");
        }
        if self.read_only {
            command.arg("--read-only");
        }
        // Made anew for a disk that comes a second time.
        daemons.directory.remove_state(&name)?;
        command
            .arg("--state-dir")
            .arg(daemons.directory.state(&name)?);
        command.args(&block.options);
        daemons.parts.start(&part, command, &[], role)?;
        Ok(DiskDevice {
            socket,
            // The configuration allows 64.
            queues: u8::try_from(queues).unwrap_or(1),
        })
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

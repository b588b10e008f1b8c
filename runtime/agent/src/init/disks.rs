//! virtio-blk devices by their serial.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for the disk that answers with `serial` and returns its device node.
pub(crate) fn find(serial: &str) -> Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let disks = serials();
        if let Some((name, _)) = disks.iter().find(|(_, theirs)| theirs == serial) {
            return Ok(Path::new("/dev").join(name));
        }
        if Instant::now() > deadline {
            let seen: Vec<_> = disks
                .iter()
                .map(|(name, serial)| format!("{name}={serial:?}"))
                .collect();
            bail!(
                "no disk has serial {serial:?} (disks seen: {})",
                seen.join(" ")
            );
        }
        thread::sleep(PAUSE);
    }
}

fn serials() -> Vec<(String, String)> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let disks = entries.filter_map(|entry| {
        let serial = fs::read_to_string(entry.path().join("serial")).ok()?;
        Some((
            entry.file_name().into_string().ok()?,
            serial.trim_end().to_owned(),
        ))
    });
    disks.collect()
}

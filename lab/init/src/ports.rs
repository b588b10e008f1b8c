//! virtio-serial ports by name (virtio 1.2, section 5.3).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const CLASS: &str = "/sys/class/virtio-ports";

/// Ports are announced over the device's control queue after the driver has bound.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// Opens the port called `name` for reading and writing.
pub(crate) fn open(name: &str) -> Result<File> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(path) = device(name) {
            let file = File::options().read(true).write(true).open(&path);
            return file.with_context(|| format!("cannot open {} for {name}", path.display()));
        }
        if Instant::now() > deadline {
            bail!("the hypervisor offers no virtio-serial port named {name}");
        }
        thread::sleep(PAUSE);
    }
}

fn device(name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(CLASS).ok()?.flatten();
    let mut matching = entries.filter(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim_end() == name)
    });
    let path = Path::new("/dev").join(matching.next()?.file_name());
    path.exists().then_some(path)
}

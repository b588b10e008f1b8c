//! Loads kernel modules in the order the initramfs lists them.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use ringside_protocol::{MODULES_DIR, MODULES_LIST};
use rustix::io::Errno;

/// Loads all modules of the initramfs.
///
/// # Errors
/// When the list or a module is not there, or the kernel refuses one. A driver for a CPU feature that
/// this CPU lacks is no error.
pub fn load_modules() -> Result<()> {
    let list =
        fs::read_to_string(MODULES_LIST).with_context(|| format!("cannot read {MODULES_LIST}"))?;
    for name in list.lines() {
        let path = Path::new(MODULES_DIR).join(name);
        let file = File::open(&path).with_context(|| format!("cannot open module {name}"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A driver for a CPU feature that this CPU lacks.
            Err(Errno::NODEV) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot load module {name}")),
        }
    }
    Ok(())
}

//! The processors that the kernel was told to leave alone (`maxcpus=1`).
//!
//! While it starts, and while KVM's keys are switched ([`keys`](crate::keys)), the kernel patches text that another
//! processor would run at that moment: `__schedule`, for one, whose stale `int3` no processor got past any more.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A folder for each processor (Linux Documentation/core-api/cpu_hotplug.rst).
const PROCESSORS: &str = "/sys/devices/system/cpu";

/// Starts all processors that stand still.
pub(crate) fn bring_up() -> Result<()> {
    let folders = fs::read_dir(PROCESSORS).with_context(|| format!("cannot read {PROCESSORS}"))?;
    for folder in folders.flatten() {
        let switch = folder.path().join("online");
        if is_off(&switch) {
            fs::write(&switch, "1")
                .with_context(|| format!("cannot start a processor: {}", switch.display()))?;
        }
    }
    Ok(())
}

/// The first processor has no switch, nor has what is no processor.
fn is_off(switch: &Path) -> bool {
    fs::read_to_string(switch).is_ok_and(|state| state.trim() == "0")
}

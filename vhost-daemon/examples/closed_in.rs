//! Closes itself in as a daemon does that opens paths while it runs, and shows what the kernel then
//! says of it. `tests/sandbox.rs` runs it.

use std::error::Error;
use std::fs;

use rustix::thread::CapabilitySet;
use vhost_daemon::sandbox::{IdMaps, Mode, Sandbox, View};

fn main() -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox {
        mode: Mode::Namespace,
        view: View::Host,
        ids: IdMaps::default(),
        capabilities: CapabilitySet::DAC_OVERRIDE,
    };
    let inside = sandbox.enter(Vec::new())?;
    for kind in ["mnt", "net", "pid", "ipc"] {
        let namespace = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        println!("{kind} {}", namespace.display());
    }
    println!("files to remove: {}", inside.files.len());
    print!("{}", fs::read_to_string("/proc/self/status")?);
    Ok(())
}

//! Turns a bare kernel into a machine that can run a command.

mod disks;
mod modules;
mod mounts;
mod network;

use std::fs;

use anyhow::{Context, Result};
use ringside_protocol::{CONFIG_PATH, GuestConfig};

pub(crate) use disks::{find as find_disk, link_disks};
pub(crate) use modules::load_modules;
pub(crate) use mounts::{
    MOVED, attach, enter_root, free_initramfs, mount_directories, mount_kernel_file_systems,
    mount_process_file_systems, switch_root,
};
pub(crate) use network::configure_network;

/// Reads what the host wants of this guest.
pub(crate) fn read_config() -> Result<GuestConfig> {
    let text = fs::read(CONFIG_PATH).with_context(|| format!("cannot read {CONFIG_PATH}"))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{CONFIG_PATH} is not for this agent: ringside and ringside-agent must be of one build"
        )
    })
}

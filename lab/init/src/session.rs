//! A machine's whole life, in order.

use std::fs;

use anyhow::{Context, Result};
use lab_protocol::{CONFIG_PATH, MachineConfig, Notice};
use ringside_agent::{init, shutdown};

use crate::control::Control;
use crate::process::{Command, StartError};
use crate::{keys, loopback, processors, root};

/// Boots, runs the command to its end and tells the host. Returns when the machine may stop.
pub(crate) fn run() -> Result<()> {
    init::mount_kernel_file_systems().context("cannot mount the kernel's file systems")?;
    init::load_modules()?;
    let mut control = Control::open()?;
    let notice = boot_and_run(&mut control).unwrap_or_else(|failure| failure);
    control.send(&notice)?;
    control.wait_for_power_off();
    Ok(())
}

/// The notice to end with: how the command ended, or as the error why it did not start.
fn boot_and_run(control: &mut Control) -> Result<Notice, Notice> {
    let config = read_config().map_err(|error| boot_failure(&error))?;
    prepare(&config)
        .and_then(|()| keys::hold())
        .and_then(|()| processors::bring_up())
        .map_err(|error| boot_failure(&error))?;
    let command = Command::open(&config.process).map_err(|error| boot_failure(&error))?;
    let running = command.start().map_err(StartError::into_notice)?;
    control
        .announce_start()
        .map_err(|error| boot_failure(&error.into()))?;
    control.serve_orders(running.target());
    let code = running.wait().map_err(|error| boot_failure(&error))?;
    let (stdout, stderr) = running.drain();
    shutdown::write_back();
    Ok(Notice::Exited {
        code,
        stdout,
        stderr,
    })
}

/// Reads what the host wants of this machine.
fn read_config() -> Result<MachineConfig> {
    let text = fs::read(CONFIG_PATH).with_context(|| format!("cannot read {CONFIG_PATH}"))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{CONFIG_PATH} is not for this program: ringside-lab and ringside-lab-init must be of one build"
        )
    })
}

fn prepare(config: &MachineConfig) -> Result<()> {
    rustix::system::sethostname(config.hostname.as_bytes()).context("cannot set the host name")?;
    root::enter(&config.root)?;
    init::mount_process_file_systems()?;
    root::mount_directories(&config.directories)?;
    loopback::set_up()
}

fn boot_failure(error: &anyhow::Error) -> Notice {
    Notice::Failed {
        message: format!("{error:#}"),
        code: 125,
    }
}

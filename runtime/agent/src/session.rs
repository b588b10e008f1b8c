//! A guest's whole life, in order.

use anyhow::{Context, Result};
use ringside_protocol::{GuestConfig, Notice};

use crate::control::Control;
use crate::process::{Command, StartError};
use crate::{init, shutdown};

/// Boots, runs the command to its end and tells the host. Returns when the machine may stop.
pub(crate) fn run(before_command: impl FnOnce() -> Result<()>) -> Result<()> {
    init::mount_kernel_file_systems().context("cannot mount the kernel's file systems")?;
    init::load_modules()?;
    let mut control = Control::open()?;
    let notice = boot_and_run(&mut control, before_command).unwrap_or_else(|failure| failure);
    control.send(&notice)?;
    control.wait_for_power_off();
    Ok(())
}

/// The notice to end with: how the command ended, or as the error why it did not start.
fn boot_and_run(
    control: &mut Control,
    before_command: impl FnOnce() -> Result<()>,
) -> Result<Notice, Notice> {
    let config = init::read_config().map_err(|error| boot_failure(&error))?;
    prepare(&config)
        .and_then(|()| before_command())
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

fn prepare(config: &GuestConfig) -> Result<()> {
    rustix::system::sethostname(config.hostname.as_bytes()).context("cannot set the host name")?;
    init::enter_root(&config.root)?;
    init::mount_process_file_systems()?;
    init::mount_directories(&config.directories)?;
    init::link_disks(&config.disks)?;
    init::configure_network(config.network.as_ref())
}

fn boot_failure(error: &anyhow::Error) -> Notice {
    Notice::Failed {
        message: format!("{error:#}"),
        code: 125,
    }
}

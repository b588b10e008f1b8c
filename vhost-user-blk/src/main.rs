//! `vhost-user-blk`: serves a disk image or a block device to virtual machines.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::daemon::{self, DaemonError};
use vhost_daemon::metrics::Metrics;
use vhost_user_blk::device::BlockDevice;
use vhost_user_blk::options::{CAPABILITIES, Config, Options, OptionsError};
use vhost_user_blk::storage::{OpenError, RawFile};

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("--log-level: {0}")]
    LogLevel(String),
    #[error(transparent)]
    Image(#[from] OpenError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    daemon::exit_code("vhost-user-blk", run(options))
}

fn run(options: Options) -> Result<(), Error> {
    vhost_daemon::log::start(&options.common.log_level)
        .map_err(|error| Error::LogLevel(error.to_string()))?;
    let Config {
        common,
        image,
        read_only,
        geometry,
        serial,
        queues,
    } = options.validate()?;
    let storage = RawFile::open(&image, read_only)?;
    let metrics = Arc::new(Metrics::default());
    let device = Arc::new(BlockDevice::new(
        storage, geometry, serial, queues, &metrics,
    ));
    device.announce(&image);
    Ok(daemon::run(&device, common, metrics)?)
}

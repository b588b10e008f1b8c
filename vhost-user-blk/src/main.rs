//! `vhost-user-blk`: serves a disk image or a block device to virtual machines.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::daemon::{self, DaemonError};
use vhost_daemon::metrics::Metrics;
use vhost_daemon::options::CommonConfig;
use vhost_daemon::queue::LogError;
use vhost_user_blk::config_space::{BlockSizeError, Geometry};
use vhost_user_blk::device::BlockDevice;
use vhost_user_blk::options::{CAPABILITIES, Config, Medium, Options, OptionsError};
use vhost_user_blk::request::Serial;
use vhost_user_blk::storage::{NullStorage, OpenError, RawFile, Storage};

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("--log-level is not a level or filter")]
    LogLevel(#[from] vhost_daemon::log::FilterError),
    #[error(transparent)]
    Image(#[from] OpenError),
    #[error("--state-dir cannot be used")]
    State(#[source] LogError),
    #[error(transparent)]
    BlockSize(#[from] BlockSizeError),
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
    vhost_daemon::log::start(&options.common.log_level)?;
    let Config {
        common,
        medium,
        state_dir,
        block_size,
        serial,
        queues,
    } = options.validate()?;
    let metrics = Arc::new(Metrics::default());
    let disk = Shape {
        block_size,
        serial,
        queues,
        state_dir,
    };
    match medium {
        Medium::Raw(image, options) => {
            let storage = RawFile::open(&image, options)?;
            serve(storage, &image.to_string_lossy(), disk, common, metrics)
        }
        Medium::Null(capacity) => serve(NullStorage { capacity }, "null", disk, common, metrics),
    }
}

/// What a disk looks like to the guest.
struct Shape {
    block_size: Option<u32>,
    serial: Serial,
    queues: usize,
    state_dir: Option<PathBuf>,
}

fn serve(
    storage: impl Storage,
    name: &str,
    disk: Shape,
    common: CommonConfig,
    metrics: Arc<Metrics>,
) -> Result<(), Error> {
    let geometry = Geometry::choose(disk.block_size, storage.alignment())?;
    let mut device = BlockDevice::new(storage, geometry, disk.serial, disk.queues, &metrics);
    if let Some(directory) = disk.state_dir {
        device.remember_in(&directory).map_err(Error::State)?;
    }
    device.announce(name);
    Ok(daemon::run(&Arc::new(device), common, metrics)?)
}

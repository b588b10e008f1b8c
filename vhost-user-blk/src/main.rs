//! `vhost-user-blk`: serves a disk image or a block device to virtual machines.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::daemon::{self, DaemonError};
use vhost_daemon::listen::ListenError;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::options::CommonConfig;
use vhost_daemon::queue::LogError;
use vhost_user_blk::config_space::{BlockSizeError, Geometry};
use vhost_user_blk::control::{self, Command, ControlError, ControlServer};
use vhost_user_blk::device::BlockDevice;
use vhost_user_blk::options::{Action, CAPABILITIES, Config, Medium, Options, OptionsError};
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
    #[error(transparent)]
    Command(#[from] ControlError),
    #[error("the answer cannot be shown")]
    Answer(#[from] serde_json::Error),
    #[error("--control cannot be served")]
    Control(#[source] ListenError),
    #[error("the disk's size cannot be read")]
    Capacity(#[source] std::io::Error),
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
    match options.action {
        Some(Action::Ctl { socket, command }) => {
            daemon::exit_code("vhost-user-blk ctl", control(&socket, command))
        }
        None => daemon::exit_code("vhost-user-blk", run(options)),
    }
}

fn control(socket: &Path, command: Command) -> Result<(), Error> {
    let stats = control::send(socket, command)?;
    println!("{}", serde_json::to_string(&stats)?);
    Ok(())
}

fn run(options: Options) -> Result<(), Error> {
    vhost_daemon::log::start(&options.common.log_level)?;
    let Config {
        common,
        medium,
        state_dir,
        control,
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
        control,
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
    control: Option<PathBuf>,
}

fn serve(
    storage: impl Storage,
    name: &str,
    disk: Shape,
    common: CommonConfig,
    metrics: Arc<Metrics>,
) -> Result<(), Error> {
    let geometry = Geometry::choose(disk.block_size, storage.alignment())?;
    let mut device = BlockDevice::new(storage, geometry, disk.serial, disk.queues, &metrics)
        .map_err(Error::Capacity)?;
    if let Some(directory) = disk.state_dir {
        device.remember_in(&directory).map_err(Error::State)?;
    }
    device.announce(name);
    let device = Arc::new(device);
    let _control = disk
        .control
        .map(|path| ControlServer::start(&path, device.clone()))
        .transpose()
        .map_err(Error::Control)?;
    Ok(daemon::run(&device, common, metrics)?)
}

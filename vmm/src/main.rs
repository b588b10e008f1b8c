//! `ringside-vmm`: runs a virtual machine whose devices are vhost-user daemons.

use std::error::Error as _;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

use clap::Parser;
use rustix::thread::CapabilitySet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::seccomp::SeccompError;
use vhost_daemon::sandbox::{
    Enclosure, EnclosureConfig, Files, IdMaps, Mode, Sandbox, SandboxError,
};
use vmm::api::{Api, ApiError};
use vmm::console::{Console, ConsoleError, RawTerminal};
use vmm::kvm::{HostKvm, KvmError, Vm};
use vmm::machine::{DeviceSet, Ended, Events, Machine, MachineError, QuitHandle, State};
use vmm::memory::{ByteSize, GuestMemory, MemoryConfig, MemoryError};
use vmm::options::{Config, NamedDevice, Options, OptionsError};
use vmm::snapshot::{Snapshot, SnapshotError};
use vmm::system_calls;
use vmm::vhost_user::{FrontEnd, FrontEndError, Patience};
use vmm::virtio::{Balloon, Rng};

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("--log-level is not a level or filter")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("--restore")]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error("{label}")]
    Device {
        label: String,
        source: FrontEndError,
    },
    #[error("--rng: cannot open /dev/urandom")]
    Rng(#[source] io::Error),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Capabilities(#[from] ModifyError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

/// How long the console's reader has for the guest's last words.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What `--check` needs of memory.
const CHECK_MEMORY: ByteSize = ByteSize(32 << 20);

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut sentence = error.to_string();
            let mut cause = error.source();
            while let Some(source) = cause {
                sentence.push_str(&format!(": {source}"));
                cause = source.source();
            }
            eprintln!("ringside-vmm: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Error> {
    let (check_only, paused, jail) = (options.check, options.paused, options.jail.clone());
    let enclosure = options.enclosure.clone().validate(CapabilitySet::empty())?;
    let snapshot = options.snapshot()?;
    let description = options.description(snapshot.as_ref())?;
    let filter = EnvFilter::try_new(description.log_level.as_deref().unwrap_or("info"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_target(false)
        .init();
    if check_only {
        return check();
    }
    let begin = if paused {
        State::Paused
    } else {
        State::Running
    };
    let config = description.validate()?;
    let host = Host {
        kvm: HostKvm::open()?,
        random: config.rng.then(Rng::open).transpose().map_err(Error::Rng)?,
    };
    close_in(enclosure, jail)?;
    system_calls::enter_main(enclosure.seccomp)?;
    run_machine(&config, host, snapshot, begin)
}

/// What is open before the VMM closes itself in.
struct Host {
    kvm: HostKvm,
    random: Option<Rng>,
}

/// Takes what a guest that broke out should not find. In a jail it is another process that returns, and
/// names of files are those that it sees.
fn close_in(config: EnclosureConfig, jail: Option<PathBuf>) -> Result<(), SandboxError> {
    let Some(directory) = jail else {
        let files = Files::AsPermitted;
        return Enclosure { config, files }.enter();
    };
    Sandbox {
        mode: Mode::Namespace,
        directory,
        read_only: false,
        ids: IdMaps::default(),
        capabilities: config.capabilities,
    }
    .enter(Vec::new())
    .map(drop)
}

fn check() -> Result<(), Error> {
    let memory = GuestMemory::new(MemoryConfig {
        size: CHECK_MEMORY,
        hugepages: false,
        prefault: false,
    })?;
    let speed = Vm::new(&HostKvm::open()?, &memory, 1)?.speed()?;
    speed.check()?;
    let millions = speed.instructions_per_second / 1_000_000;
    println!("/dev/kvm is native: {millions} million ring-0 instructions a second");
    Ok(())
}

fn run_machine(
    config: &Config,
    host: Host,
    mut snapshot: Option<Snapshot>,
    mut begin: State,
) -> Result<(), Error> {
    let events = Events::default();
    quit_on_signals(events.quit_handle())?;
    let memory = GuestMemory::new(config.memory)?;
    if let Some(snapshot) = &snapshot {
        snapshot.load_memory(&memory)?;
    }
    let quit = events.quit_handle();
    let console = Console::open(&config.console, Box::new(move || quit.quit()))?;
    let _raw = config.console.is_terminal().then(RawTerminal::enter);
    let mut devices = connect(&config.devices, &memory)?;
    if let Some(source) = host.random {
        devices.add_own(Arc::new(Mutex::new(source.device(&memory))));
    }
    if let Some(size) = config.balloon {
        devices.add_balloon(Arc::new(Balloon::new(&memory, size.0)));
    }
    let controller = events.controller(&memory);
    let api = config.api_socket.as_deref();
    let _api = api.map(|path| Api::serve(path, controller)).transpose()?;
    let ended = loop {
        let (machine, state) = (&config.machine, snapshot.as_ref().map(|it| &it.machine));
        let machine = Machine::new(
            machine,
            &host.kvm,
            &memory,
            &console,
            &events,
            &mut devices,
            state,
        )?;
        let ended = machine.run(begin);
        // Whatever it was made of, a machine that starts again boots.
        (snapshot, begin) = (None, State::Running);
        console.flush(LAST_WORDS);
        match ended {
            Ok(Ended::Reset) if !config.no_reboot => memory.clear()?,
            Ok(Ended::Restart) => memory.clear()?,
            other => break other,
        }
    };
    tracing::info!(by = ?ended?, "the machine ended");
    Ok(())
}

fn connect(wanted: &[NamedDevice], memory: &GuestMemory) -> Result<DeviceSet, Error> {
    let mut devices = DeviceSet::default();
    for named in wanted {
        let device = FrontEnd::connect(named.front_end.clone(), memory, Patience::Starting);
        let device = device.map_err(|source| Error::Device {
            label: named.label.clone(),
            source,
        })?;
        devices.add(named.clone(), device);
    }
    Ok(devices)
}

fn quit_on_signals(quit: QuitHandle) -> Result<(), Error> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(Error::Signals)?;
    Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                quit.quit();
            }
        })
        .map(drop)
        .map_err(Error::Signals)
}

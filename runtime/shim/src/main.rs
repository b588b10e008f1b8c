//! `containerd-shim-ringside-v2`: containerd's tasks in virtual machines, one for each pod.

mod bundle;
mod logging;
mod publish;
mod service;
mod shim;

use std::process::ExitCode;

use containerd_shim::Config;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// What containerd knows the runtime by.
const RUNTIME: &str = "io.containerd.ringside.v2";

fn main() -> ExitCode {
    if std::env::args()
        .skip(1)
        .any(|it| it == "-v" || it == "-version" || it == "--version")
    {
        println!("containerd-shim-ringside-v2 {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = end_with_holder() {
        eprintln!("{RUNTIME}: {error}");
        return ExitCode::FAILURE;
    }
    // Before there is any thread. `start` and `delete` mount nothing.
    if serves()
        && let Err(error) = ringside_pod::enter_mount_namespace()
    {
        eprintln!("{RUNTIME}: cannot make a mount namespace: {error}");
        return ExitCode::FAILURE;
    }
    // One thread: the kernel kills a pod's parts when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{RUNTIME}: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = Config {
        // Parts are waited for one by one.
        no_reaper: true,
        no_sub_reaper: true,
        no_setup_logger: true,
        ..Config::default()
    };
    runtime.block_on(containerd_shim::asynchronous::run::<shim::RingsideShim>(
        RUNTIME,
        Some(config),
    ));
    // A thread that waits for a FIFO must not hold the process.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Names the process that holds this one, as `ringside create`'s does: the kernel then ends this one with it.
const HOLDER: &str = "RINGSIDE_SHIM_HOLDER";

fn end_with_holder() -> std::io::Result<()> {
    if !serves() {
        return Ok(());
    }
    let Some(holder) = std::env::var(HOLDER).ok().and_then(|it| it.parse().ok()) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the line above.
    if getppid().map(Pid::as_raw_pid) != Some(holder) {
        return Err(std::io::Error::other("who started it has ended"));
    }
    Ok(())
}

/// Whether this process is the one that stays: the others are `start` and `delete`.
fn serves() -> bool {
    !std::env::args()
        .skip(1)
        .any(|it| it == "start" || it == "delete")
}

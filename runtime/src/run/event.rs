//! What can happen while a machine runs.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::{Context, Result};
use ringside_protocol::Notice;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

/// Something that the run's one loop acts on.
#[derive(Debug)]
pub(crate) enum Event {
    /// This process got a signal.
    Signal(i32),
    /// A daemon or the hypervisor ended.
    PartEnded(Ended),
    /// The guest said something.
    Notice(Notice),
    /// The guest said something that cannot be understood.
    BadNotice(io::Error),
    /// Output reached the host's stream, up to where the guest said it ends.
    OutputComplete,
    /// Nobody reads the host's stream any more.
    OutputBroken,
}

/// A part's end.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Index among the run's parts.
    pub(crate) part: usize,
    /// How it ended.
    pub(crate) status: ExitStatus,
}

/// Why a run ended before its command did.
#[derive(Debug)]
pub(super) enum Failure {
    /// By this signal to ringside.
    Interrupted(i32),
    /// The guest could not run the command.
    Guest {
        /// Its own words.
        message: String,
        /// The exit code that fits.
        code: u8,
    },
    /// These parts ended, in this order.
    Ended(Vec<Ended>),
    /// No daemon listens on this socket.
    NotServed(PathBuf),
    /// The command did not start in time.
    NotBooted,
    /// The control port carried nonsense.
    Control(io::Error),
}

/// Reports signals as events from now on, instead of dying of them.
pub(crate) fn watch_signals(events: Sender<Event>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH])
        .context("cannot handle signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

//! One process in the guest, from its streams to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use ringside_pod::chain;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use super::super::OciError;
use super::super::task::{Stdio, Task};
use super::{Console, Ends, KILLED, Relays, relay};

/// How long nothing may come from a process that has ended: others may hold its streams open.
const SILENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// What the holder of a process hears of.
#[derive(Debug)]
pub(super) enum Event {
    /// It has ended, with this code.
    Exit(u32),
    /// One of its outputs was read to its end.
    OutputEnd,
    /// Whoever read its output has gone.
    OutputGone,
    /// This process got a signal.
    Signal(i32),
    /// The shim has ended.
    ShimEnd,
}

/// A process that is held.
pub(super) struct Served {
    task: Arc<Task>,
    exec: String,
    stdio: Stdio,
    console: Option<Console>,
    relays: Relays,
}

impl Served {
    /// Makes its streams, and begins to move bytes and to listen for signals and its end.
    pub(super) fn prepare(
        task: Task,
        waiting: Task,
        exec: &str,
        folder: &Path,
        ends: Ends<'_>,
        terminal: bool,
        events: Sender<Event>,
    ) -> Result<Self, OciError> {
        let stdio = relay::make(folder, terminal)?;
        let console = match ends {
            Ends::Own => None,
            Ends::OwnTerminal => Some(Console::own()?),
            Ends::Console(socket) => Some(Console::send(socket)?),
        };
        listen_to_signals(events.clone())?;
        let task = Arc::new(task);
        let relays = Relays::start(&stdio, console.as_ref(), &task, exec, &events)?;
        let exec_id = exec.to_owned();
        relays.when_made(move || {
            let code = waiting.wait(&exec_id).unwrap_or_else(|error| {
                tracing::debug!("{}", chain(&error));
                KILLED
            });
            // Nobody listens any more.
            let _ = events.send(Event::Exit(code));
        });
        Ok(Self {
            task,
            exec: exec.to_owned(),
            stdio,
            console,
            relays,
        })
    }

    pub(super) fn task(&self) -> &Task {
        &self.task
    }

    pub(super) fn stdio(&self) -> Stdio {
        self.stdio.clone()
    }

    /// Gives its terminal the size that the host's has. Called when the process was made.
    pub(super) fn follow_window(&self) {
        self.relays.made();
        self.resize();
    }

    fn resize(&self) {
        let Some((rows, columns)) = self.console.as_ref().and_then(Console::size) else {
            return;
        };
        if let Err(error) = self.task.resize(&self.exec, rows, columns) {
            tracing::debug!("{}", chain(&error));
        }
    }

    fn signal(&self, signal: i32) {
        let signal = signal.unsigned_abs();
        if let Err(error) = self.task.kill(&self.exec, signal, false) {
            tracing::debug!("{}", chain(&error));
        }
    }

    /// Passes signals on until it has ended; returns its code.
    pub(super) fn until_the_end(&self, inbox: &Receiver<Event>) -> u32 {
        while let Ok(event) = inbox.recv() {
            match event {
                Event::Exit(code) => return code,
                Event::ShimEnd => break,
                Event::Signal(SIGWINCH) => self.resize(),
                Event::Signal(signal) => self.signal(signal),
                // As one that writes to a pipe or terminal without a reader.
                Event::OutputGone if self.console.is_some() => self.signal(SIGHUP),
                Event::OutputGone => self.signal(SIGPIPE),
                Event::OutputEnd => self.relays.one_ended(),
            }
        }
        KILLED
    }

    /// Waits until its output was written, or nothing more comes of it.
    pub(super) fn drain(&self, inbox: &Receiver<Event>) {
        while !self.relays.are_done(SILENCE) {
            match inbox.recv_timeout(LOOK) {
                Ok(Event::OutputEnd) => self.relays.one_ended(),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(console) = &self.console {
            console.give_up();
        }
    }
}

fn listen_to_signals(events: Sender<Event>) -> Result<(), OciError> {
    let wanted = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH];
    let mut signals = Signals::new(wanted).map_err(OciError::system("listen to signals"))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    });
    Ok(())
}

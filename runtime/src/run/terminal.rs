//! The host's terminal in raw mode, and back.

use anyhow::{Context, Result, ensure};
use ringside_protocol::agent::WindowSize;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal as it was. It is restored when this is dropped.
#[derive(Debug)]
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes sure that there is a terminal, without changing it yet.
    pub(super) fn check() -> Result<Self> {
        ensure!(
            isatty(stdin()),
            "-t needs a terminal, but standard input is none"
        );
        ensure!(
            isatty(stdout()),
            "-t needs a terminal, but standard output is none"
        );
        let before = tcgetattr(stdin()).context("cannot read the terminal's mode")?;
        Ok(Self { before })
    }

    /// From now on every key goes to the guest.
    pub(super) fn enter(self) -> Result<Self> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(self)
    }

    pub(super) fn size(&self) -> WindowSize {
        window_size()
    }
}

/// The terminal's size, or the oldest one of all where it does not know its own.
pub(super) fn window_size() -> WindowSize {
    let size = tcgetwinsize(stdout())
        .ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or(
        WindowSize {
            rows: 24,
            columns: 80,
            ..WindowSize::default()
        },
        |size| WindowSize {
            rows: size.ws_row.into(),
            columns: size.ws_col.into(),
            ..WindowSize::default()
        },
    )
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone (SIGHUP): then there is nothing to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

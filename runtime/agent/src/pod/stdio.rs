//! A process's standard streams: pipes or a terminal on its side, connections to the host on the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use ringside_protocol::agent::{Streams, WindowSize};
use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use super::containers::Process;
use super::copy::Kind;
use super::error::{Error, Result};
use super::helper::Stdio3;
use super::layout;
use super::mover::Mover;
use super::spec::{ProcessGlance, UserGlance};
use crate::sys;

/// The host's side of streams that a request named.
struct Host {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Both sides, while the process is being started.
pub(super) struct Prepared {
    host: Host,
    ours: Ours,
}

/// The agent's side.
enum Ours {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
    Terminal(Console, Winsize),
}

/// A socket that libcontainer sends a terminal's other side to.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

/// Claims the streams that a request names and makes the process's ends of them.
pub(super) fn prepare(
    mover: &Mover,
    process: &ProcessGlance,
    streams: &Streams,
    window: &WindowSize,
) -> Result<(Prepared, Stdio3)> {
    if process.terminal && !streams.stderr.is_empty() {
        return Err(Error::invalid(
            "streams.stderr",
            "a process with a terminal has none",
        ));
    }
    let host = Host {
        stdin: claim(mover, "streams.stdin", &streams.stdin)?,
        stdout: claim(mover, "streams.stdout", &streams.stdout)?,
        stderr: claim(mover, "streams.stderr", &streams.stderr)?,
    };
    if process.terminal {
        let console = Console::new().context("cannot make a socket for the terminal")?;
        let ours = Ours::Terminal(console, size(window)?);
        return Ok((Prepared { host, ours }, Stdio3::null()));
    }
    let make = |wanted: bool, to_process| end(wanted, to_process, &process.user);
    let (stdin, theirs_in) = make(host.stdin.is_some(), true)?;
    let (stdout, theirs_out) = make(host.stdout.is_some(), false)?;
    let (stderr, theirs_err) = make(host.stderr.is_some(), false)?;
    let ours = Ours::Pipes {
        stdin,
        stdout,
        stderr,
    };
    let theirs = Stdio3 {
        stdin: theirs_in,
        stdout: theirs_out,
        stderr: theirs_err,
    };
    Ok((Prepared { host, ours }, theirs))
}

fn claim(mover: &Mover, field: &'static str, name: &str) -> Result<Option<OwnedFd>> {
    if name.is_empty() {
        return Ok(None);
    }
    let missing = || Error::invalid(field, format!("no connection has announced {name:?}"));
    mover.claim(name).map(Some).ok_or_else(missing)
}

/// A pipe, ours first, or nothing and `/dev/null`.
fn end(wanted: bool, to_process: bool, user: &UserGlance) -> Result<(Option<OwnedFd>, Stdio)> {
    if !wanted {
        return Ok((None, Stdio::null()));
    }
    let make = || -> io::Result<_> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        // So that it can open /dev/stdin and the like again.
        fchown(&reader, Some(uid), Some(gid))?;
        Ok(if to_process {
            (writer, reader)
        } else {
            (reader, writer)
        })
    };
    let (ours, theirs) = make().context("cannot make a pipe for a standard stream")?;
    Ok((Some(ours), theirs.into()))
}

/// Rows and columns as the kernel takes them. Nothing said is 0 by 0, which is what a new terminal has.
pub(super) fn size(window: &WindowSize) -> Result<Winsize> {
    let number = |field, value: u32| {
        u16::try_from(value)
            .map_err(|_| Error::invalid(field, format!("{value} is more than 65535")))
    };
    Ok(Winsize {
        ws_row: number("window.rows", window.rows)?,
        ws_col: number("window.columns", window.columns)?,
        ws_xpixel: 0,
        ws_ypixel: 0,
    })
}

impl Prepared {
    /// Where libcontainer is to send the terminal; empty without one.
    pub(super) fn console(&self) -> PathBuf {
        match &self.ours {
            Ours::Terminal(console, _) => console.path.clone(),
            Ours::Pipes { .. } => PathBuf::new(),
        }
    }

    /// Bytes move from now on. The process has been started.
    pub(super) fn connect(self, mover: &Mover) -> Result<Process> {
        let mut process = Process::default();
        if let Err(error) = self.join(mover, &mut process) {
            // What is connected already would have no process.
            mover.stop(process.copies());
            let error = anyhow::Error::new(error).context("cannot connect the standard streams");
            return Err(error.into());
        }
        Ok(process)
    }

    fn join(self, mover: &Mover, process: &mut Process) -> io::Result<()> {
        let Host {
            stdin,
            stdout,
            stderr,
        } = self.host;
        let (input, output, errors, kind) = match self.ours {
            Ours::Pipes {
                stdin,
                stdout,
                stderr,
            } => (stdin, stdout, stderr, Kind::Input),
            Ours::Terminal(console, size) => {
                let terminal = console.receive()?;
                tcsetwinsize(&terminal, size)?;
                let (input, output) = (terminal.try_clone()?, terminal.try_clone()?);
                process.terminal = Some(terminal);
                (Some(input), Some(output), None, Kind::TerminalInput)
            }
        };
        if let (Some(host), Some(guest)) = (stdin, input) {
            process.input = Some(mover.copy(host, guest, kind)?);
        }
        for (guest, host) in [(output, stdout), (errors, stderr)] {
            if let (Some(guest), Some(host)) = (guest, host) {
                process.outputs.push(mover.copy(guest, host, Kind::Output)?);
            }
        }
        Ok(())
    }
}

impl Console {
    fn new() -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(layout::CONSOLES).join(number.to_string());
        let listener = UnixListener::bind(&path)?;
        Ok(Self { path, listener })
    }

    /// The terminal came while the helper worked, or it comes no more.
    fn receive(&self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (socket, _) = self.listener.accept()?;
        socket.set_nonblocking(true)?;
        let terminal = sys::helper::receive_descriptor(&socket)?;
        if rustix::termios::isatty(terminal.as_fd()) {
            Ok(terminal)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what came is no terminal",
            ))
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

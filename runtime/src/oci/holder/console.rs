//! The host's side of a process's terminal.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::super::OciError;
use crate::sys::descriptor;

/// A terminal whose keys go to the guest as they are. Its mode is restored when this is dropped.
pub(super) struct Console {
    input: OwnedFd,
    output: OwnedFd,
    /// Of a terminal that somebody else goes on with.
    before: Option<Termios>,
}

impl Console {
    /// This process's own terminal.
    ///
    /// # Errors
    /// When it has none.
    pub(super) fn own() -> Result<Self, OciError> {
        if !isatty(stdin()) || !isatty(stdout()) {
            return Err(OciError::usage(
                "--tty needs a terminal as standard input and output, or --console-socket with --detach",
            ));
        }
        let copy = |it: std::os::fd::BorrowedFd<'_>| {
            it.try_clone_to_owned()
                .map_err(OciError::system("duplicate the terminal"))
        };
        let (input, output) = (copy(stdin())?, copy(stdout())?);
        let before = make_raw(&input)?;
        Ok(Self {
            input,
            output,
            before: Some(before),
        })
    }

    /// A new terminal, whose master goes through the engine's socket. It becomes this session's, so that SIGWINCH
    /// and SIGHUP come here.
    ///
    /// # Errors
    /// When it cannot be made, or the socket does not take it.
    pub(super) fn send(socket: &Path) -> Result<Self, OciError> {
        let failed = || OciError::system("make a terminal");
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .map_err(failed())?;
        grantpt(&master).map_err(failed())?;
        unlockpt(&master).map_err(failed())?;
        let name = ptsname(&master, Vec::new()).map_err(failed())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(&name, flags, Mode::empty()).map_err(failed())?;
        make_raw(&slave)?;
        rustix::process::ioctl_tiocsctty(&slave)
            .map_err(OciError::system("make the terminal this session's"))?;
        send(socket, &master, name.as_bytes())?;
        let output = slave
            .try_clone()
            .map_err(OciError::system("duplicate a terminal"))?;
        Ok(Self {
            input: slave,
            output,
            before: None,
        })
    }

    /// What is typed.
    pub(super) fn input(&self) -> std::io::Result<File> {
        self.input.try_clone().map(File::from)
    }

    /// What is seen.
    pub(super) fn output(&self) -> std::io::Result<File> {
        self.output.try_clone().map(File::from)
    }

    /// Rows and columns, once somebody has said them.
    pub(super) fn size(&self) -> Option<(u16, u16)> {
        let size = tcgetwinsize(&self.output).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }

    /// Before the end: a terminal of ours is not hung up with what nobody has read yet.
    pub(super) fn give_up(&self) {
        if self.before.is_none() {
            descriptor::give_up_terminal(&self.output);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It may be gone (SIGHUP): then there is nothing to restore.
            let _ = tcsetattr(&self.input, OptionalActions::Now, before);
        }
    }
}

/// From now on every key goes to the guest; returns the mode before.
fn make_raw(terminal: &OwnedFd) -> Result<Termios, OciError> {
    let before = tcgetattr(terminal).map_err(OciError::system("read the terminal's mode"))?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(terminal, OptionalActions::Now, &raw)
        .map_err(OciError::system("set the terminal's mode"))?;
    Ok(before)
}

/// One message with the descriptor, as runc sends it: its data is the terminal's name.
fn send(socket: &Path, master: &OwnedFd, name: &[u8]) -> Result<(), OciError> {
    let failed = || OciError::file("send the terminal through", socket);
    let stream = UnixStream::connect(socket).map_err(failed())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        &stream,
        &[IoSlice::new(name)],
        &mut control,
        SendFlags::empty(),
    )
    .map_err(|error| failed()(error.into()))?;
    Ok(())
}

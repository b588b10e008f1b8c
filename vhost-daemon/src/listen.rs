//! Unix sockets that a daemon listens on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use thiserror::Error;

use crate::patience::Patience;
use crate::sys;

/// A socket cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process answers on it.
    #[error("socket {0} is in use by another process")]
    InUse(PathBuf),
    /// The path exists and is no socket.
    #[error("{0} exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// bind(2), chmod(2) or unlink(2) failed.
    #[error("cannot listen on socket {path}")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Listens on `path`, mode 0600. A socket file that nobody listens on any more (a killed daemon's)
/// is replaced; one in use, or a file of another kind, is not.
///
/// # Errors
/// See [`ListenError`].
pub fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Bind {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => remove_stale(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = private_listener(path).map_err(|error| failed(error.into()))?;
    Ok(listener)
}

/// Whether who has connected is the own user, or root.
pub fn is_owner(stream: impl AsFd) -> bool {
    let own = rustix::process::geteuid().as_raw();
    sys::peer_user(stream.as_fd()).is_ok_and(|user| user == 0 || user == own)
}

/// The mode is set before the socket has a name: nobody else can connect at any moment.
fn private_listener(path: &Path) -> rustix::io::Result<UnixListener> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket.into())
}

fn remove_stale(path: &Path, metadata: &std::fs::Metadata) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let mut patience = Patience::default();
    let mut holder = None;
    let answer = loop {
        match try_connect(path) {
            Ok(process) => holder = process,
            // Who has as many connections waiting as may be is there; asked before, perhaps, who it is.
            Err(Errno::AGAIN) => {}
            Err(errno) => break errno,
        }
        if !patience.lasts(&path.display(), holder) {
            return Err(ListenError::InUse(path.to_owned()));
        }
    };
    match answer {
        Errno::CONNREFUSED => std::fs::remove_file(path).map_err(|source| ListenError::Bind {
            path: path.to_owned(),
            source,
        }),
        Errno::NOENT => Ok(()),
        errno => Err(ListenError::Bind {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// The process that listens, if it has a number for us. Without waiting for one that does not accept.
fn try_connect(path: &Path) -> rustix::io::Result<Option<i32>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(sys::peer_process(socket.as_fd()))
}

/// A socket's file, which goes when the value does.
#[derive(Debug)]
pub struct SocketFile(Option<PathBuf>);

impl SocketFile {
    /// The file of a socket that was bound to `path`.
    pub fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    /// Leaves the file to somebody else.
    pub fn leave(mut self) {
        self.0 = None;
    }

    /// Removes the file.
    pub(crate) fn remove(&self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where front ends come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket of our own: its file is removed at the end.
    Path(PathBuf),
    /// The same, bound already; the file may be somebody else's to remove.
    Bound(UnixListener, Option<SocketFile>),
    /// The front end's own socket, on which it listens: we connect, again after each disconnect.
    FrontEnd(PathBuf),
    /// A socket that the parent process made: listening, or connected to the one front end.
    Inherited(OwnedFd),
}

impl Endpoint {
    /// Binds a socket of our own now. Members of `group` may connect, too.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(self, group: Option<Gid>) -> Result<Self, ListenError> {
        match self {
            Self::Path(path) => {
                let listener = bind(&path)?;
                let file = SocketFile::new(path.clone());
                if let Some(group) = group {
                    open_to(&path, group).map_err(|errno| ListenError::Bind {
                        path,
                        source: errno.into(),
                    })?;
                }
                Ok(Self::Bound(listener, Some(file)))
            }
            bound => Ok(bound),
        }
    }

    /// Where a socket of our own is.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) | Self::FrontEnd(path) => Some(path.clone()),
            Self::Bound(listener, _) => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(Path::to_owned)
            }
            Self::Inherited(_) => None,
        }
    }

    /// Takes over the removal of the socket's file, if there is one to remove.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        match self {
            Self::Bound(_, file) => file.take(),
            _ => None,
        }
    }
}

/// The group first: nobody is let in who should not be.
fn open_to(path: &Path, group: Gid) -> rustix::io::Result<()> {
    rustix::fs::chown(path, None, Some(group))?;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
    rustix::fs::chmod(path, mode)
}

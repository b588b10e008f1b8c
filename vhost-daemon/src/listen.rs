//! Unix sockets that a daemon listens on.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use thiserror::Error;

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
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| ListenError::Bind {
                path: path.to_owned(),
                source,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ListenError::Bind {
            path: path.to_owned(),
            source,
        }),
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
    }
}

/// Where front ends come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket of our own: its file is removed at the end.
    Path(PathBuf),
    /// A socket that the parent process made: listening, or connected to the one front end.
    Inherited(OwnedFd),
}

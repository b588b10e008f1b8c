//! The keeper's own process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, socket_with, sockopt::socket_peercred,
};
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::{Enclosure, EnclosureOptions, Files, SandboxError};

use super::{ALL, CLEAR, DROP, HOLD, receive, send};

/// Most files held: a guest can make so many without a name.
const MOST: usize = 1 << 16;

/// Holds the files of a daemon's guest that have no name, while the daemon is away.
#[derive(Args, Clone, Debug)]
pub struct KeeperOptions {
    /// Socket for the daemon (--keeper)
    #[arg(long, value_name = "PATH")]
    pub socket_path: PathBuf,

    /// How the keeper is closed in.
    #[command(flatten)]
    pub sandbox: EnclosureOptions,
}

/// The keeper cannot work.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// Another one does.
    #[error("socket {0} is in use by another process")]
    InUse(PathBuf),
    /// Its socket cannot be made.
    #[error("cannot listen on socket {path}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `--modcaps`.
    #[error(transparent)]
    Capabilities(#[from] ModifyError),
    /// It cannot be closed in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Its socket broke.
    #[error("cannot accept a daemon's connection")]
    Accept(#[source] io::Error),
}

/// Keeps files until it is ended. One daemon at a time; the next one gets what the last one left.
///
/// # Errors
/// See [`KeeperError`].
pub fn run(options: KeeperOptions) -> Result<(), KeeperError> {
    let listener = listening(&options.socket_path)?;
    let enclosure = Enclosure {
        config: options.sandbox.validate(CapabilitySet::empty())?,
        files: Files::removed([]),
    };
    enclosure.enter()?;
    tracing::info!(socket = %options.socket_path.display(), "keeping");
    let mut held = BTreeMap::new();
    loop {
        let daemon = match accept_with(&listener, SocketFlags::CLOEXEC) {
            Ok(daemon) => daemon,
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(errno) => return Err(KeeperError::Accept(errno.into())),
        };
        if !is_ours(&daemon) {
            tracing::warn!("a stranger has connected");
            continue;
        }
        if let Err(error) = serve(&daemon, &mut held) {
            tracing::warn!(%error, "a daemon's connection broke");
        }
    }
}

/// Whether the daemon has the same user, or is root.
fn is_ours(daemon: &OwnedFd) -> bool {
    let own = rustix::process::geteuid();
    socket_peercred(daemon).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

fn serve(daemon: &OwnedFd, held: &mut BTreeMap<u64, OwnedFd>) -> io::Result<()> {
    while let Some((message, file)) = receive(daemon)? {
        match (message, file) {
            ([HOLD, node], Some(file)) => {
                if held.len() < MOST || held.contains_key(&node) {
                    held.insert(node, file);
                }
            }
            ([DROP, node], _) => drop(held.remove(&node)),
            ([CLEAR, _], _) => held.clear(),
            ([ALL, _], _) => {
                for (node, file) in &*held {
                    send(
                        daemon,
                        [HOLD, *node],
                        Some(file.as_fd()),
                        SendFlags::empty(),
                    )?;
                }
                send(daemon, [ALL, 0], None, SendFlags::empty())?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A socket that only the own user can connect to. One that a dead keeper has left is replaced.
fn listening(path: &Path) -> Result<OwnedFd, KeeperError> {
    let failed = |errno: Errno| KeeperError::Listen {
        path: path.to_owned(),
        source: errno.into(),
    };
    let socket = || {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        socket_with(family, kind, SocketFlags::CLOEXEC, None)
    };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    match connect(socket().map_err(failed)?, &address) {
        Ok(()) => return Err(KeeperError::InUse(path.to_owned())),
        // Nobody listens there any more.
        Err(Errno::CONNREFUSED) if is_socket(path) => {
            let _ = std::fs::remove_file(path);
        }
        Err(_) => {}
    }
    let listener = socket().map_err(failed)?;
    // Before it has a name: nobody else can connect at any moment.
    fchmod(&listener, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    bind(&listener, &address).map_err(failed)?;
    listen(&listener, 4).map_err(failed)?;
    Ok(listener)
}

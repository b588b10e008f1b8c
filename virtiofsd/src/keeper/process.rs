//! The keeper's own process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;
use rustix::net::SendFlags;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::daemon::raise_descriptor_limit;
use vhost_daemon::listen::{self, ListenError};
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::seccomp::{Call, Role, SeccompError, ThreadFilters};
use vhost_daemon::sandbox::{Enclosure, EnclosureOptions, Files, SandboxError};

use super::{ALL, CLEAR, DROP, HOLD, receive, send};

/// Most files held: a guest can make so many without a name.
const MOST: usize = 1 << 16;

/// Open files beside those: sockets, the log, and the one that has just come.
const RESERVE: u64 = 32;

/// What it does, beyond what every thread does.
const CALLS: &[Call] = &[
    Call::any(libc::SYS_accept4, "the daemon's connection"),
    Call::any(libc::SYS_getsockopt, "who has connected"),
    Call::any(libc::SYS_recvmsg, "messages with files"),
    Call::any(libc::SYS_sendmsg, "messages with files"),
];

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
    /// Its socket cannot be made.
    #[error("the keeper cannot listen")]
    Listen(#[from] ListenError),
    /// `--modcaps`.
    #[error(transparent)]
    Capabilities(#[from] ModifyError),
    /// It cannot be closed in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Its system calls cannot be bounded.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// Its socket broke.
    #[error("cannot accept a daemon's connection")]
    Accept(#[source] io::Error),
}

/// Keeps files until it is ended. One daemon at a time; the next one gets what the last one left.
///
/// # Errors
/// See [`KeeperError`].
pub fn run(options: KeeperOptions) -> Result<(), KeeperError> {
    let listener = listen::bind(&options.socket_path)?;
    let config = options.sandbox.validate(CapabilitySet::empty())?;
    let filters = ThreadFilters::of(config.seccomp, [(Role::Main, CALLS.to_vec())])?;
    let files = Files::removed([]);
    let room = room();
    Enclosure { config, files }.enter()?;
    filters.enter(Role::Main)?;
    tracing::info!(socket = %options.socket_path.display(), "keeping");
    let mut held = BTreeMap::new();
    loop {
        let daemon = match listener.accept() {
            Ok((daemon, _)) => daemon,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(KeeperError::Accept(error)),
        };
        if !listen::is_owner(&daemon) {
            tracing::warn!("a stranger has connected");
            continue;
        }
        if let Err(error) = serve(&daemon, room, &mut held) {
            tracing::warn!(%error, "a daemon's connection broke");
        }
    }
}

/// How many files can be held.
fn room() -> usize {
    raise_descriptor_limit();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = limit.saturating_sub(RESERVE);
    usize::try_from(limit).unwrap_or(usize::MAX).min(MOST)
}

fn serve(daemon: &UnixStream, room: usize, held: &mut BTreeMap<u64, OwnedFd>) -> io::Result<()> {
    let mut was_full = false;
    while let Some((message, file)) = receive(daemon)? {
        match (message, file) {
            ([HOLD, node], Some(file)) if held.len() < room || held.contains_key(&node) => {
                held.insert(node, file);
            }
            ([HOLD, _], _) if was_full => {}
            // Also one for which the kernel found no descriptor any more: that costs this file only.
            ([HOLD, _], _) => {
                was_full = true;
                let held = held.len();
                tracing::warn!(held, "no room: further files may not outlive the daemon");
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_without_room_costs_only_itself() {
        let (daemon, keeper) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let say = |message, file| send(&daemon, message, file, SendFlags::empty()).unwrap();
        say([HOLD, 1], Some(file.as_fd()));
        // The descriptor did not arrive.
        say([HOLD, 2], None);
        say([HOLD, 3], Some(file.as_fd()));
        say([HOLD, 4], Some(file.as_fd()));
        say([HOLD, 3], Some(file.as_fd()));
        say([DROP, 1], None);
        say([HOLD, 5], Some(file.as_fd()));
        drop(daemon);
        let mut held = BTreeMap::new();
        serve(&keeper, 2, &mut held).unwrap();
        assert_eq!(held.into_keys().collect::<Vec<_>>(), [3, 5]);
    }
}

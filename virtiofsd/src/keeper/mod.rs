//! Who holds what has no name any more while the daemon is away.
//!
//! A file that a guest has open and has removed, or made without a name, is freed with its last
//! descriptor: if the daemon dies, the file dies. The keeper, a process of its own
//! (`virtiofsd keep`), holds a second descriptor of it and hands that to the next daemon.
//!
//! Messages on its socket are two words of 64 bits: what, and a node's number.

mod process;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::SendFlags;
use vhost_daemon::messages;

pub use process::{KeeperError, KeeperOptions, run};

/// Hold the file that comes with this.
const HOLD: u64 = 1;
/// Close it.
const DROP: u64 = 2;
/// Close all.
const CLEAR: u64 = 3;
/// Hand all out; each comes as [`HOLD`], the last one followed by this.
const ALL: u64 = 4;

/// Files that a keeper holds, by node.
pub type Held = HashMap<u64, OwnedFd>;

/// The way to the keeper.
pub struct Keeper {
    socket: UnixStream,
    /// It was not there when it was needed.
    lost: AtomicBool,
}

impl Keeper {
    /// Connects to the keeper that listens on `path`; with it comes what it holds, by node.
    ///
    /// # Errors
    /// When it does not answer as a keeper does.
    pub fn connect(path: &Path) -> io::Result<(Self, Held)> {
        let socket = UnixStream::connect(path)?;
        send(&socket, [ALL, 0], None, SendFlags::empty())?;
        let mut held = Held::new();
        loop {
            match receive(&socket)? {
                Some(([HOLD, node], Some(file))) => {
                    held.insert(node, file);
                }
                Some(([ALL, _], None)) => break,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let lost = AtomicBool::new(false);
        Ok((Self { socket, lost }, held))
    }

    /// Has the file of a node held.
    pub fn hold(&self, node: u64, file: BorrowedFd<'_>) {
        self.say([HOLD, node], Some(file));
    }

    /// The guest has forgotten the node.
    pub fn drop(&self, node: u64) {
        self.say([DROP, node], None);
    }

    /// The guest has forgotten all.
    pub fn clear(&self) {
        self.say([CLEAR, 0], None);
    }

    /// Never waits: a keeper that hangs costs a file its survival, no guest its answer.
    fn say(&self, message: [u64; 2], file: Option<BorrowedFd<'_>>) {
        let said = send(&self.socket, message, file, SendFlags::DONTWAIT);
        if let Err(error) = said
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %error,
                "the keeper is gone or busy: files without a name may not outlive this process"
            );
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

fn send(
    to: impl AsFd,
    message: [u64; 2],
    file: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    let bytes = message.map(u64::to_le_bytes).concat();
    messages::send(to, &bytes, file.as_slice(), flags)
}

/// The next message; `None` at the end of the connection.
fn receive(from: impl AsFd) -> io::Result<Option<([u64; 2], Option<OwnedFd>)>> {
    let mut words = [[0; 8]; 2];
    let mut files = Vec::new();
    match messages::receive(from, words.as_flattened_mut(), &mut files) {
        Ok(()) => Ok(Some((words.map(u64::from_le_bytes), files.pop()))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

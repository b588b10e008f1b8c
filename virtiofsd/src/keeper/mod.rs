//! Who holds what has no name any more while the daemon is away.
//!
//! A file that a guest has open and has removed, or made without a name, is freed with its last
//! descriptor: if the daemon dies, the file dies. The keeper, a process of its own
//! (`virtiofsd keep`), holds a second descriptor of it and hands that to the next daemon.
//!
//! Messages on its socket are two words of 64 bits: what, and a node's number.

mod process;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// What it need not hold any more, and was too busy to hear: at most a message for each file that it
    /// holds.
    unsaid: Mutex<VecDeque<[u64; 2]>>,
    /// There is some of that.
    is_behind: AtomicBool,
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
        Ok((Self::over(socket), held))
    }

    fn over(socket: UnixStream) -> Self {
        Self {
            socket,
            unsaid: Mutex::default(),
            is_behind: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    /// Has the file of a node held; `false` if the keeper is gone or busy. Never waits: a keeper that hangs
    /// costs a file its survival, no guest its answer.
    pub fn hold(&self, node: u64, file: BorrowedFd<'_>) -> bool {
        let mut unsaid = self.unsaid();
        let said = self
            .say_all(&mut unsaid)
            .and_then(|()| self.say([HOLD, node], Some(file)));
        if let Err(error) = &said
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %error,
                "the keeper is gone or busy: files without a name may not outlive this process"
            );
        }
        said.is_ok()
    }

    /// The guest has forgotten the node.
    pub fn drop(&self, node: u64) {
        self.let_go([DROP, node]);
    }

    /// The guest has forgotten all.
    pub fn clear(&self) {
        self.let_go([CLEAR, 0]);
    }

    /// Tells what the keeper was too busy to hear, if there is any: a file that it held for nobody would
    /// take its room on the disk for ever.
    pub fn catch_up(&self) {
        if self.is_behind.load(Ordering::Relaxed) {
            // What it does not hear now comes with the next call.
            let _ = self.say_all(&mut self.unsaid());
        }
    }

    fn let_go(&self, message: [u64; 2]) {
        let mut unsaid = self.unsaid();
        if message[0] == CLEAR {
            unsaid.clear();
        }
        unsaid.push_back(message);
        let _ = self.say_all(&mut unsaid);
    }

    fn say_all(&self, unsaid: &mut VecDeque<[u64; 2]>) -> io::Result<()> {
        let mut said = Ok(());
        while let Some(message) = unsaid.front() {
            said = self.say(*message, None);
            match &said {
                Ok(()) => drop(unsaid.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It is gone.
                Err(_) => unsaid.clear(),
            }
        }
        self.is_behind.store(!unsaid.is_empty(), Ordering::Relaxed);
        said
    }

    fn say(&self, message: [u64; 2], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        send(&self.socket, message, file, SendFlags::DONTWAIT)
    }

    fn unsaid(&self) -> MutexGuard<'_, VecDeque<[u64; 2]>> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;

    use super::*;

    #[test]
    fn a_keeper_that_was_busy_hears_what_it_need_not_hold() {
        let (socket, end) = UnixStream::pair().unwrap();
        let keeper = Keeper::over(socket);
        let file = File::open("/dev/null").unwrap();
        let held: Vec<u64> = (0..1_000_000)
            .take_while(|node| keeper.hold(*node, file.as_fd()))
            .collect();
        held.iter().for_each(|node| keeper.drop(*node));
        assert!(keeper.is_behind.load(Ordering::Relaxed));
        end.set_nonblocking(true).unwrap();
        let mut holds = BTreeSet::new();
        let mut most = 0;
        while keeper.is_behind.load(Ordering::Relaxed) || !holds.is_empty() || most == 0 {
            match receive(&end) {
                Ok(Some(([HOLD, node], Some(_)))) => assert!(holds.insert(node)),
                Ok(Some(([DROP, node], None))) => assert!(holds.remove(&node)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => keeper.catch_up(),
                other => panic!("{other:?}"),
            }
            most = most.max(holds.len());
        }
        assert_eq!(most, held.len());
        assert!(keeper.hold(1_000_000, file.as_fd()));
    }

    #[test]
    fn a_keeper_that_is_gone_is_owed_nothing() {
        let (socket, end) = UnixStream::pair().unwrap();
        drop(end);
        let keeper = Keeper::over(socket);
        (0..100).for_each(|node| keeper.drop(node));
        keeper.clear();
        assert!(keeper.unsaid().is_empty());
        let file = File::open("/dev/null").unwrap();
        assert!(!keeper.hold(1, file.as_fd()));
    }
}

//! A file system of the test's own, below what a daemon serves. What fails here fails the test by a panic.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test has no use for a medium that is not there"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bridge::{Bridge, Journal};
use crate::inside::Process;
use crate::process::{Daemon, binary};
use crate::scratch::Scratch;

/// Longer than a daemon takes to start on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A mounted directory whose changes are recorded, and that answers late when it is told to.
pub struct Medium {
    /// Where it is mounted, in the mount namespace of the thread that made it.
    pub mount: PathBuf,
    /// What is mounted, as the host has it.
    pub shared: PathBuf,
    /// Every change and every sync.
    pub journal: Arc<Journal>,
    // Last to first: unmounted, then the daemon, then the directory.
    _bridge: Bridge,
    daemon: Daemon,
    /// A directory on the host's own disk; the mount is below it.
    pub scratch: Scratch,
}

impl Medium {
    /// Mounts one in a mount namespace of the calling thread's own.
    #[must_use]
    pub fn new(test: &str) -> Self {
        crate::need::root().unwrap();
        crate::mounts::make_private().unwrap();
        let scratch = Scratch::new(test).unwrap();
        let (mount, shared) = (
            scratch.dir("mount").unwrap(),
            scratch.dir("shared").unwrap(),
        );
        let socket = scratch.join("fs.sock");
        // One process, that it can be made to stand still.
        let daemon = Daemon::builder(binary("virtiofsd").unwrap())
            .args(["--sandbox", "none", "--socket-path"])
            .arg(&socket)
            .arg("--shared-dir")
            .arg(&shared)
            .spawn_listening(&socket, SOON)
            .unwrap();
        let journal = Arc::new(Journal::default());
        let bridge = Bridge::new(&socket).recording(&journal).mount(&mount);
        Self {
            mount,
            shared,
            journal,
            _bridge: bridge.unwrap(),
            daemon,
            scratch,
        }
    }

    /// Answers nothing until [`Held::answer`].
    #[must_use]
    pub fn hold(&self) -> Held<'_> {
        self.daemon.signal(Signal::STOP).unwrap();
        // Its threads stop one after another.
        let deadline = Instant::now() + SOON;
        let stopped = |(_, state): (_, String)| state.starts_with('T');
        while !Process::of(self.daemon.pid())
            .threads("State")
            .into_iter()
            .all(stopped)
        {
            assert!(Instant::now() < deadline, "it does not stop");
            thread::sleep(Duration::from_millis(1));
        }
        Held(self)
    }
}

/// A medium that does not answer until this is dropped.
pub struct Held<'a>(&'a Medium);

impl Held<'_> {
    /// From now on it answers.
    pub fn answer(self) {}
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.0.daemon.signal(Signal::CONT);
    }
}

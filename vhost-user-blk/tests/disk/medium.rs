//! A file system of the test's own for images to lie on.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lab::bridge::{Bridge, Journal};
use lab::inside::Process;
use lab::process::{Daemon, binary};
use lab::scratch::Scratch;
use rustix::process::Signal;

use super::SOON;

/// A mounted directory whose changes are recorded, and that answers late when it is told to.
pub struct Medium {
    pub mount: PathBuf,
    pub shared: PathBuf,
    pub journal: Arc<Journal>,
    // Last to first: unmounted, then the daemon, then the directory.
    _bridge: Bridge,
    daemon: Daemon,
    pub scratch: Scratch,
}

impl Medium {
    pub fn new(test: &str) -> Self {
        lab::need::root().unwrap();
        lab::mounts::make_private().unwrap();
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
    pub fn answer(self) {}
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.0.daemon.signal(Signal::CONT);
    }
}

//! A daemon that is killed, and its guest that goes on with the next one.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::frontend::fs::{Fs, REQUEST_QUEUE};
use lab::frontend::{FrontEnd, GuestMemory};
use lab::process::{Daemon, DaemonBuilder};

use crate::share::session::Session;
use crate::share::{SOON, Share};

/// A process that was killed is awaited: it goes when the kernel has done what it had begun.
pub const AFTER_A_SYNC: Duration = Duration::from_secs(60);

/// A daemon that remembers, and a guest's driver.
pub struct Guest {
    pub share: Share,
    pub options: Vec<String>,
    pub memory: GuestMemory,
    pub front_end: Option<FrontEnd>,
    pub fs: Fs,
}

impl Guest {
    pub fn start(test: &str, options: &[&str]) -> Self {
        Self::start_in(test, options, |_| {})
    }

    /// One whose daemon finds a state directory that `prepare` has seen before.
    pub fn start_in(test: &str, options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let mut share = Share::start(test);
        share.daemon.terminate(SOON).unwrap();
        prepare(&share.scratch.dir("state").unwrap());
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        share.daemon = launch(&share, &options);
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = share.front_end(u64::MAX, &memory);
        let mut fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 1024).unwrap());
        fs.init(38, 0).unwrap();
        Self {
            share,
            options,
            memory,
            front_end: Some(front_end),
            fs,
        }
    }

    /// Kills the daemon, starts the next one and connects to it.
    pub fn kill(&mut self) {
        self.die();
        self.go_on();
    }

    pub fn die(&mut self) {
        self.share.daemon.kill().unwrap();
        // The sandboxed process may take a moment longer: nobody is to find it by its socket.
        fs::remove_file(&self.share.socket).unwrap();
    }

    pub fn go_on(&mut self) {
        drop(self.front_end.take());
        self.share.daemon = launch(&self.share, &self.options);
        let mut front_end = self.share.front_end(u64::MAX, &self.memory);
        let queue = self.fs.queue_mut();
        let base = queue.used_idx().unwrap();
        front_end.attach_queue(queue, base).unwrap();
        self.front_end = Some(front_end);
    }

    pub fn session(&mut self) -> Session<'_> {
        Session(&mut self.fs)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.share.directory.join(name)
    }
}

pub fn launch(share: &Share, options: &[String]) -> Daemon {
    builder(share, options)
        .spawn_listening(&share.socket, AFTER_A_SYNC)
        .unwrap()
}

pub fn builder(share: &Share, options: &[String]) -> DaemonBuilder {
    share.remembering().args(options)
}

//! A daemon, mounted on the host's own kernel by the lab's bridge.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fs;
use std::path::{Path, PathBuf};

use lab::bridge::Bridge;
use lab::mounts;

use crate::share::Share;

/// A daemon, mounted in a mount namespace of this test's thread.
pub struct Mounted {
    pub share: Share,
    pub at: PathBuf,
    pub bridge: Option<Bridge>,
}

impl Mounted {
    pub fn start(test: &str, options: &[&str], queues: usize) -> Self {
        Self::on(
            Share::start_with(test, |daemon| daemon.args(options)),
            queues,
        )
    }

    /// Mounts what `share` serves.
    pub fn on(share: Share, queues: usize) -> Self {
        mounts::make_private().expect("this test mounts: run it as root");
        let at = share.scratch.dir("mnt").unwrap();
        let mut mounted = Self {
            share,
            at,
            bridge: None,
        };
        mounted.mount(queues);
        mounted
    }

    pub fn mount(&mut self, queues: usize) {
        let bridge = Bridge::new(&self.share.socket).queues(queues);
        self.bridge = Some(bridge.mount(&self.at).unwrap());
    }

    pub fn unmount(&mut self) {
        self.bridge.take().unwrap().unmount().unwrap();
        assert!(!is_mounted(&self.at));
        assert_eq!(fs::read_dir(&self.at).unwrap().count(), 0);
    }
}

pub fn is_mounted(directory: &Path) -> bool {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.contains(directory.to_str().unwrap())
}

//! What containerd tells whoever listens.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::Signal;

use crate::containerd::{Containerd, eventually, kill};

/// All it told since [`follow`](Self::follow), one event a line: time, name space, topic, JSON.
pub(crate) struct Events {
    follower: Child,
    told: PathBuf,
}

impl Events {
    pub(crate) fn follow(containerd: &Containerd) -> Self {
        let told = containerd.scratch.join("events");
        let follower = containerd.background(&["events"], &told);
        Self { follower, told }
    }

    pub(crate) fn told(&self) -> String {
        fs::read_to_string(&self.told).unwrap()
    }

    /// Waits for an event of this topic and container.
    #[track_caller]
    pub(crate) fn wait_for(&self, topic: &str, container: &str) {
        let (topic, id) = (
            format!(" {topic} "),
            format!("\"container_id\":\"{container}\""),
        );
        let is_it = |line: &str| line.contains(&topic) && line.contains(&id);
        eventually(&format!("no {topic} of {container}"), || {
            self.told().lines().any(is_it)
        });
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // `timeout` passes it on to ctr.
        kill(self.follower.id(), Signal::TERM);
        let _ = self.follower.wait();
    }
}

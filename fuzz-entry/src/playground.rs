//! A thread as a queue has it, with a small file system in memory that nobody else sees.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};

use crate::sys::unshare_mounts;

/// What no guest may read.
pub(crate) const SECRET: &[u8] = b"what no guest may read: 7f3a91";

/// Where inputs are played.
pub(crate) struct Playground {
    inputs: Sender<Vec<u8>>,
    done: Mutex<Receiver<()>>,
}

impl Playground {
    /// Plays each input with `play`, which is given the file system: directories `shared` and
    /// `state`, and beside them what is [`outside`].
    pub(crate) fn new(play: fn(&Path, &[u8])) -> Self {
        let (inputs, to_play) = mpsc::channel::<Vec<u8>>();
        let (played, done) = mpsc::channel();
        std::thread::spawn(move || {
            let at = scratch();
            for input in to_play {
                play(&at, &input);
                played.send(()).unwrap();
            }
        });
        Self {
            inputs,
            done: Mutex::new(done),
        }
    }

    /// Plays one input; panics if it broke a promise.
    pub(crate) fn play(&self, input: &[u8]) {
        let broken = "a promise was broken: see above";
        self.inputs.send(input.to_vec()).expect(broken);
        self.done.lock().unwrap().recv().expect(broken);
    }
}

/// A small file system of its own, so that no request fills the host's.
fn scratch() -> PathBuf {
    unshare_mounts().expect("this input is played on a tmpfs of its own: run it as root");
    let kept_here = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", kept_here).unwrap();
    let at = PathBuf::from("/dev/shm");
    let options = c"size=32m,nr_inodes=4000";
    rustix::mount::mount("fuzz", &at, "tmpfs", MountFlags::NODEV, options).unwrap();
    fs::create_dir(at.join("outside")).unwrap();
    fs::write(at.join("secret"), SECRET).unwrap();
    fs::write(at.join("outside/file"), SECRET).unwrap();
    fs::create_dir(at.join("shared")).unwrap();
    fs::create_dir(at.join("state")).unwrap();
    at
}

/// What must not change outside: also its times.
pub(crate) fn outside(at: &Path) -> Vec<(u64, u64, u32, u64, i64, i64)> {
    let paths = [
        at.to_owned(),
        at.join("secret"),
        at.join("outside"),
        at.join("outside/file"),
    ];
    let status = paths.iter().map(|path| fs::symlink_metadata(path).unwrap());
    status
        .map(|s| {
            (
                s.ino(),
                s.nlink(),
                s.mode(),
                s.size(),
                s.ctime(),
                s.ctime_nsec(),
            )
        })
        .collect()
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

//! A FUSE bridge: mounts a file system daemon on the host's own kernel, without a guest.
//!
//! The kernel's FUSE client asks /dev/fuse what a guest's would ask its virtio-fs device. The
//! bridge forwards each request into a virtio-fs queue of the daemon and each reply back, so that
//! every program of the host (fio, git, a test suite) drives the daemon at native speed.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lab::bridge::Bridge;
//!
//! lab::mounts::make_private()?;
//! let bridge = Bridge::new("/tmp/fs.sock".as_ref()).queues(2).mount("/mnt".as_ref())?;
//! println!("{}", std::fs::read_to_string("/mnt/hello")?);
//! bridge.unmount()?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! program ─▶ kernel ─▶ /dev/fuse ─▶ lane (thread) ─▶ virtio-fs queue ─▶ daemon
//!                                    reads a request into guest memory that the chain's
//!                                    descriptors name; writes the reply out of it
//! ```
//!
//! One thread, a [`lane`], owns each request queue with a clone of /dev/fuse of its own: a reply
//! must go where its request came from. `FORGET` and `INTERRUPT` go to the high-priority queue
//! (virtio 1.2, 5.11.6). A lane touches no file of the mounted tree, so it cannot wait for itself.

mod daemon;
mod error;
mod init;
mod journal;
mod lane;
mod layout;
mod stop;
mod urgent;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Pid;

pub use error::{Error, Result};
pub use journal::{Event, Journal};

use crate::frontend::fs::InitReply;
use crate::frontend::{DriverQueue, FrontEnd};
use crate::{need, sys};
use daemon::Attached;
use lane::Lane;
use stop::Stop;

/// The daemon answers `INIT` and what was under way within this.
const SOON: Duration = Duration::from_secs(10);

/// What is to be mounted, and how.
#[derive(Clone, Debug)]
pub struct BridgeBuilder {
    socket: PathBuf,
    queues: usize,
    waits: bool,
    journal: Option<Arc<Journal>>,
}

/// A mounted daemon. Dropping it unmounts.
pub struct Bridge {
    directory: PathBuf,
    /// While there is one it is mounted.
    lanes: Vec<JoinHandle<Result<()>>>,
    /// The lanes' threads, as the kernel numbers them.
    threads: Vec<Pid>,
    stop: Arc<Stop>,
    init: InitReply,
    socket: PathBuf,
    rings: Vec<DriverQueue>,
    // Last: the daemon goes on until nothing is under way any more.
    front_end: FrontEnd,
}

/// Ends a mount from another thread.
#[derive(Clone, Debug)]
pub struct Cutter(Arc<Stop>);

impl Cutter {
    /// Cuts the connection: every program that waits on the mount gets an error.
    pub fn cut(&self) {
        self.0.abort();
    }
}

impl BridgeBuilder {
    /// Uses that many request queues instead of one, with a thread each.
    #[must_use]
    pub fn queues(mut self, queues: usize) -> Self {
        self.queues = queues.max(1);
        self
    }

    /// Waits for another daemon when this one is gone ([`Bridge::reattach`]).
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Records what is changed.
    #[must_use]
    pub fn recording(mut self, journal: &Arc<Journal>) -> Self {
        self.journal = Some(Arc::clone(journal));
        self
    }

    /// Mounts on `directory`, in the calling thread's mount namespace; the [`Bridge`] must be
    /// dropped by a thread of the same one.
    ///
    /// # Errors
    /// When this is not root, there is no /dev/fuse, or the daemon does not serve.
    pub fn mount(self, directory: &Path) -> Result<Bridge> {
        need::root()?;
        need::device("/dev/fuse")?;
        let Attached {
            front_end,
            rings,
            requests,
            urgent,
        } = daemon::attach(&self.socket, self.queues)?;
        let connection = sys::fuse::open().map_err(Error::os("cannot open /dev/fuse"))?;
        mount_fuse(&connection, directory)?;
        let stop = Arc::new(Stop::new()?);
        let (told, heard) = mpsc::channel();
        // From here on dropping it unmounts.
        let mut bridge = Bridge {
            directory: directory.to_owned(),
            lanes: Vec::new(),
            threads: Vec::new(),
            stop: Arc::clone(&stop),
            init: InitReply::default(),
            socket: self.socket.clone(),
            rings,
            front_end,
        };
        let urgent = Arc::new(urgent);
        let devices = devices(connection, requests.len())?;
        for ((index, queue), device) in requests.into_iter().enumerate().zip(devices) {
            let socket = (!self.waits).then(|| bridge.front_end.stream());
            let stops = (Arc::clone(&stop), told.clone());
            let lane = Lane::new(device, queue, Arc::clone(&urgent), stops, socket)?;
            let lane = lane.recording(self.journal.clone());
            let named = thread::Builder::new().name(format!("lane{index}"));
            let (number, numbered) = mpsc::channel();
            let thread = named.spawn(move || {
                let _ = number.send(rustix::thread::gettid());
                lane.run(index == 0)
            });
            bridge
                .lanes
                .push(thread.map_err(Error::os("cannot start a thread"))?);
            bridge.threads.extend(numbered.recv());
        }
        drop(told);
        bridge.init = heard
            .recv_timeout(SOON)
            .map_err(|_| Error::NoInit(SOON))??;
        Ok(bridge)
    }
}

impl Bridge {
    /// Prepares to mount the daemon that listens on `socket`.
    // A builder reads better where it begins with the thing it builds.
    #[allow(clippy::new_ret_no_self, reason = "as with std's thread builders")]
    #[must_use]
    pub fn new(socket: &Path) -> BridgeBuilder {
        BridgeBuilder {
            socket: socket.to_owned(),
            queues: 1,
            waits: false,
            journal: None,
        }
    }

    /// Goes on with a daemon that was started after the last one had been killed.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn reattach(&mut self) -> Result<()> {
        self.front_end = daemon::attach_again(&self.socket, &self.rings)?;
        Ok(())
    }

    /// What the kernel and the daemon agreed on.
    #[must_use]
    pub fn init(&self) -> InitReply {
        self.init
    }

    /// Where it is mounted.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Processor time that the lanes have used, which is part of what a program waits for.
    ///
    /// # Errors
    /// When the kernel keeps no account (`CONFIG_SCHED_INFO`).
    pub fn processor_time(&self) -> std::io::Result<Duration> {
        let of = |thread: &Pid| {
            let thread = thread.as_raw_nonzero();
            // Nanoseconds on a processor come first (Documentation/scheduler/sched-stats.rst).
            let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            first
                .parse()
                .map(Duration::from_nanos)
                .map_err(std::io::Error::other)
        };
        self.threads.iter().map(of).sum()
    }

    /// For another thread: ends the mount when something hangs.
    #[must_use]
    pub fn cutter(&self) -> Cutter {
        Cutter(Arc::clone(&self.stop))
    }

    /// Unmounts, and waits until the daemon has nothing under way.
    ///
    /// # Errors
    /// What went wrong in the meantime, and when the daemon does not let go.
    pub fn unmount(mut self) -> Result<()> {
        self.close()
    }

    /// In this order: the kernel may write back what is dirty while it unmounts, and lanes have to
    /// serve that. Where the daemon hangs, the lanes' end closes /dev/fuse, which ends all waiting.
    fn close(&mut self) -> Result<()> {
        if self.lanes.is_empty() {
            return Ok(());
        }
        let unmounted = self.detach();
        self.stop.raise();
        let mut outcome = unmounted;
        for lane in self.lanes.drain(..) {
            let ended = lane.join().unwrap_or(Err(Error::Panicked));
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn detach(&self) -> Result<()> {
        let directory = self.directory.clone();
        let mounted = directory.clone();
        let (number, numbered) = mpsc::channel();
        let unmounting = thread::spawn(move || {
            let _ = number.send(rustix::thread::gettid());
            unmount(&mounted, UnmountFlags::DETACH)
        });
        let deadline = Instant::now() + SOON;
        while !unmounting.is_finished() {
            if Instant::now() >= deadline {
                let waited_in = numbered.recv().map_or_else(|_| String::new(), stack_of);
                self.stop.abort();
                return Err(Error::NotUnmounted {
                    directory,
                    timeout: SOON,
                    waited_in,
                });
            }
            thread::sleep(Duration::from_micros(200));
        }
        let done = unmounting.join().map_err(|_| Error::Panicked)?;
        done.map_err(|errno| Error::Unmount {
            directory: self.directory.clone(),
            source: errno.into(),
        })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("lab: bridge on {}: {error}", self.directory.display());
        }
    }
}

/// Where in the kernel a thread waits.
fn stack_of(thread: Pid) -> String {
    let thread = thread.as_raw_nonzero();
    let stack = std::fs::read_to_string(format!("/proc/self/task/{thread}/stack"));
    let stack = stack.unwrap_or_default();
    // [<0>] function+0x1/0x2
    let functions = stack
        .lines()
        .filter_map(|line| line.split([' ', '+']).nth(1));
    functions.collect::<Vec<_>>().join(" < ")
}

fn mount_fuse(connection: &File, directory: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let fd = connection.as_raw_fd();
    // As virtio-fs mounts: the kernel checks permissions, and every user may ask.
    let options =
        format!("fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other\0");
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).ok();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("ringside-lab", directory, "fuse", flags, options).map_err(|errno| Error::Mount {
        directory: directory.to_owned(),
        source: errno.into(),
    })
}

/// The connection itself, and clones of it.
fn devices(connection: File, count: usize) -> Result<Vec<File>> {
    let clones: std::io::Result<Vec<File>> =
        (1..count).map(|_| sys::fuse::share(&connection)).collect();
    let mut devices = clones.map_err(Error::os("cannot share /dev/fuse (FUSE_DEV_IOC_CLONE)"))?;
    devices.insert(0, connection);
    Ok(devices)
}

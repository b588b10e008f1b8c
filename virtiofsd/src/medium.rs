//! Who moves a file's data: the queue's thread at once, or its io_uring.
//!
//! The io_uring does by itself what needs no waiting. What might wait it hands to a thread of the kernel,
//! and on some file systems that is everything: they cannot be asked not to wait. Two threads more have to
//! be woken then, which costs many times what copying 4 KiB does. So
//!
//! - files in memory (tmpfs, ramfs) are read and written by the queue's thread: nothing but swapping makes
//!   it wait;
//! - writes to the page cache of file systems that know no write without waiting (ext4, overlayfs, ...)
//!   are done by the queue's thread for as long as they are quick. One that takes long, because the host
//!   holds writers back or has to read the rest of a page, is the last for a while;
//! - the io_uring does the rest: reads through a page cache, direct and synchronous I/O, and all I/O on
//!   other file systems, such as those behind a network.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use vhost_daemon::worker::Io;

/// An open file of the host's, and who moves its data.
#[derive(Clone, Debug)]
pub struct HostFile {
    /// The file.
    pub file: Arc<File>,
    /// What it is kept on.
    pub medium: Arc<Medium>,
}

/// A file system of the host's, as far as moving data is concerned.
#[derive(Debug)]
pub struct Medium {
    kind: Kind,
    cuts: Cuts,
    writes: Patience,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Reads and writes do not wait.
    Memory,
    /// Reads can be asked not to wait, writes cannot.
    Disk,
    /// The io_uring knows best.
    Other,
}

/// Where a read may end before the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// Where pages begin: all before the one that cannot be read are there.
    AtPages,
    /// Wherever somebody else likes, for instance a FUSE server.
    Anywhere,
}

impl Cuts {
    /// The smallest page there is; larger ones are a multiple of it.
    const PAGE: u64 = 4096;

    /// Whether a read that came to `end` and is too short may have more to read behind it. What ends
    /// elsewhere is the end of the file.
    pub(crate) fn may_be_at(self, end: u64) -> bool {
        self == Self::Anywhere || end.is_multiple_of(Self::PAGE)
    }
}

/// Numbers of statfs(2), from linux/magic.h.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const EXT4: u64 = 0xef53;
const F2FS: u64 = 0xf2f5_2010;
const OVERLAYFS: u64 = 0x794c_7630;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;

/// Flags of a write that waits for the disk.
const SYNCHRONOUS: i32 = libc::RWF_SYNC | libc::RWF_DSYNC;

impl Medium {
    fn new(kind: Kind, cuts: Cuts) -> Self {
        Self {
            kind,
            cuts,
            writes: Patience::default(),
        }
    }

    fn of(file: impl AsFd) -> Self {
        let magic = rustix::fs::fstatfs(file).ok();
        let magic = magic.and_then(|status| u64::try_from(status.f_type).ok());
        match magic {
            Some(TMPFS | RAMFS) => Self::new(Kind::Memory, Cuts::AtPages),
            Some(EXT4 | F2FS | OVERLAYFS) => Self::new(Kind::Disk, Cuts::AtPages),
            Some(XFS | BTRFS) => Self::new(Kind::Other, Cuts::AtPages),
            _ => Self::new(Kind::Other, Cuts::Anywhere),
        }
    }

    /// Where its reads may end before the file does.
    pub(crate) fn cuts(&self) -> Cuts {
        self.cuts
    }

    /// Does a read or write, if the calling thread is to do it.
    pub(crate) fn do_now(&self, io: &Io) -> Option<io::Result<u32>> {
        match (self.kind, io) {
            (Kind::Memory, Io::Read { .. } | Io::Write { .. }) => Some(io.run_inline(&[])),
            (Kind::Disk, Io::Write { flags, .. }) if flags & SYNCHRONOUS == 0 => {
                let begun = Instant::now();
                self.writes.allows(begun).then(|| {
                    let result = io.run_inline(&[]);
                    self.writes.took(begun, begun.elapsed());
                    result
                })
            }
            _ => None,
        }
    }
}

/// The file systems that open files are on.
pub(crate) struct Media {
    /// By device number. A share has few.
    by_device: RwLock<Vec<(u64, Arc<Medium>)>>,
    /// For files whose flags ask to wait for the disk.
    waiting: Arc<Medium>,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            by_device: RwLock::default(),
            waiting: Arc::new(Medium::new(Kind::Other, Cuts::Anywhere)),
        }
    }
}

impl Media {
    /// More are not remembered: each of their files is asked.
    const MOST: usize = 64;

    /// What `file` is kept on, a file of `device`.
    pub(crate) fn of(&self, device: u64, file: impl AsFd) -> Arc<Medium> {
        let known = self
            .by_device
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, medium)) = known.iter().find(|(known, _)| *known == device) {
            return medium.clone();
        }
        drop(known);
        let medium = Arc::new(Medium::of(file));
        let mut known = self
            .by_device
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() < Self::MOST {
            known.push((device, medium.clone()));
        }
        medium
    }

    /// For a file whose every write, or every transfer, waits for the disk.
    pub(crate) fn waiting(&self) -> Arc<Medium> {
        self.waiting.clone()
    }
}

/// Whether the next operation is likely to be quick.
#[derive(Debug, Default)]
struct Patience {
    /// Nanoseconds of [`since_start`]: none before this.
    not_before: AtomicU64,
    /// How long the last pause was, in nanoseconds.
    pause: AtomicU64,
}

/// What takes longer holds up a queue for more than the io_uring costs.
const LONG: Duration = Duration::from_millis(1);
/// The first pause after an operation that took long; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Patience {
    fn allows(&self, now: Instant) -> bool {
        let not_before = self.not_before.load(Ordering::Relaxed);
        not_before == 0 || since_start(now) >= not_before
    }

    /// An operation that was begun at `begun` took `time`.
    fn took(&self, begun: Instant, time: Duration) {
        let pause = Duration::from_nanos(self.pause.load(Ordering::Relaxed));
        if time > LONG {
            let pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.pause.store(nanoseconds(pause), Ordering::Relaxed);
            let until = since_start(begun + time + pause);
            self.not_before.store(until, Ordering::Relaxed);
        } else if !pause.is_zero() {
            self.pause.store(0, Ordering::Relaxed);
            self.not_before.store(0, Ordering::Relaxed);
        }
    }
}

fn since_start(now: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanoseconds(now.saturating_duration_since(*START))
}

/// 2^64 of them are 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost_daemon::queue::Buffers;
    use vhost_daemon::worker::IoFile;

    const QUICK: Duration = Duration::from_micros(5);
    const SLOW: Duration = Duration::from_millis(30);

    #[test]
    fn what_took_long_is_not_tried_for_a_while() {
        let patience = Patience::default();
        let now = Instant::now();
        assert!(patience.allows(now));
        patience.took(now, QUICK);
        assert!(patience.allows(now));
        patience.took(now, SLOW);
        let again = now + SLOW + FIRST_PAUSE;
        assert!(!patience.allows(again - QUICK) && patience.allows(again));
        patience.took(again, SLOW);
        assert!(!patience.allows(again + SLOW + FIRST_PAUSE));
        let again = again + SLOW + FIRST_PAUSE * 2;
        assert!(patience.allows(again));
        patience.took(again, QUICK);
        assert!(patience.allows(again) && patience.pause.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn pauses_have_an_end() {
        let patience = Patience::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            patience.took(now, SLOW);
            now += SLOW + LONGEST_PAUSE;
            assert!(patience.allows(now));
        }
    }

    #[test]
    fn writes_that_wait_for_the_disk_are_the_rings() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let disk = Medium::new(Kind::Disk, Cuts::AtPages);
        for (flags, now) in [(0, true), (libc::RWF_SYNC, false), (libc::RWF_DSYNC, false)] {
            let write = Io::Write {
                file: IoFile::Open(file.clone()),
                buffers: Buffers::zeroed(10, 1).unwrap(),
                offset: 0,
                flags,
            };
            assert_eq!(disk.do_now(&write).is_some(), now, "{flags}");
        }
    }

    #[test]
    fn file_systems_are_known_by_their_device() {
        let media = Media::default();
        let memory = File::open("/dev/shm").unwrap();
        let proc = File::open("/proc/self").unwrap();
        assert_eq!(media.of(1, &memory).kind, Kind::Memory);
        assert_eq!(media.of(2, &proc).kind, Kind::Other);
        // Not asked again.
        assert_eq!(media.of(1, &proc).kind, Kind::Memory);
    }
}

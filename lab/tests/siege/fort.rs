//! A daemon that is attacked, and what is to hold of it after each attack.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::inside::{Holdings, Process};
use lab::netns::{NetNamespace, Tap};
use lab::process::{Daemon, binary};
use lab::scratch::Scratch;

use super::dice::Dice;
use super::kind::Kind;

pub(crate) const TAP: &str = "siege-tap";
/// For what takes no time, except on a machine with much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const DISK: u64 = 8 << 20;
/// What a guest writes, allocates and lengthens in the share has its end there.
const SHARE: &str = "size=32m,nr_inodes=20000";
/// Attacks after which it is as large as it gets.
const WARM: u64 = 8;
/// An allocator keeps some for each of its arenas.
const SLACK_KIB: u64 = 16 << 10;
/// What guests can make it write to its log.
const LOG: usize = 4 << 20;

/// What a process holds now.
fn held_by(pid: u32) -> Holdings {
    Process::of(pid).holdings()
}

fn is_within(now: &Holdings, before: &Holdings) -> bool {
    now.descriptors <= before.descriptors
        && now.threads <= before.threads
        && now.private_kib <= before.private_kib + SLACK_KIB
}

pub(crate) struct Fort {
    pub(crate) kind: Kind,
    daemon: Daemon,
    /// After the daemon, which is in it.
    _namespace: Option<NetNamespace>,
    /// Unmounted before the folder goes.
    _share: Mounted,
    scratch: Scratch,
    attacks: u64,
    warm: Option<Holdings>,
    last: Option<Holdings>,
}

impl Fort {
    pub(crate) fn new(kind: Kind) -> Self {
        let scratch = Scratch::in_memory("siege").unwrap();
        scratch.image("disk", DISK).unwrap();
        let share = Mounted::new(scratch.dir("shared").unwrap());
        let namespace = (kind == Kind::Network).then(|| {
            let namespace = NetNamespace::new().unwrap();
            namespace.add_tap(TAP, &Tap::default()).unwrap();
            namespace
        });
        let (program, options) = kind.command();
        let directory = scratch.path().to_str().unwrap();
        let all = ["--socket-path", "@/socket"];
        let all = all.iter().chain(options);
        let builder = Daemon::builder(binary(program).unwrap())
            .args(["--log-level", "warn"])
            .args(all.map(|it| it.replace('@', directory)));
        let mut daemon = match &namespace {
            Some(namespace) => namespace.spawn(builder).unwrap(),
            None => builder.spawn().unwrap(),
        };
        daemon
            .wait_listening(&scratch.join("socket"), SOON)
            .unwrap();
        Self {
            kind,
            daemon,
            _namespace: namespace,
            _share: share,
            scratch,
            attacks: 0,
            warm: None,
            last: None,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.join("socket")
    }

    /// Those of virtio that a guest takes: never all the same.
    pub(crate) fn features(&self, dice: &mut Dice) -> u64 {
        let optional = [
            features::EVENT_IDX,
            features::INDIRECT_DESC,
            // Whatever the device has of its own.
            0x00ff_ffff,
        ];
        let chosen = optional.into_iter().filter(|_| !dice.once_in(3));
        chosen.fold(features::VERSION_1, |all, one| all | one)
    }

    pub(crate) fn front_end(
        &self,
        memory: &GuestMemory,
        wanted: u64,
    ) -> lab::frontend::Result<FrontEnd> {
        let mut front_end = FrontEnd::connect(&self.socket(), SOON)?;
        front_end.set_timeout(SOON);
        let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        front_end.handshake(wanted, protocol)?;
        front_end.set_mem_table(memory)?;
        Ok(front_end)
    }

    /// It serves the next one, and holds no more than after the first attacks.
    pub(crate) fn stands(&mut self) {
        let memory = GuestMemory::with_size(4 << 20).unwrap();
        let served = self
            .front_end(&memory, features::VERSION_1)
            .and_then(|mut front_end| self.kind.work(&mut front_end));
        if let Err(error) = served {
            panic!("it said: {}\n{self}: {error}", self.daemon.stderr());
        }
        self.attacks += 1;
        let pid = self.daemon.serving_pid().unwrap();
        if self.attacks < WARM {
            return;
        }
        let warm = *self.warm.get_or_insert_with(|| settled(pid));
        // The last front end's threads take a moment to end.
        let deadline = Instant::now() + SOON;
        loop {
            let now = held_by(pid);
            self.last = Some(now);
            if is_within(&now, &warm) {
                break;
            }
            assert!(Instant::now() < deadline, "{self} grows: {warm:?}, {now:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it held first and last, when it has ended as a user ends it.
    pub(crate) fn end(mut self) -> String {
        let exit = self.daemon.terminate(SOON).unwrap();
        assert!(exit.status.success(), "{self}: {}", exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
        assert!(
            exit.stderr.len() < LOG,
            "{self}: {} bytes of log",
            exit.stderr.len()
        );
        let (Some(warm), Some(last)) = (self.warm, self.last) else {
            panic!("{self}: too few attacks in so short a time");
        };
        format!(
            "{} → {} | {} → {} | {} → {}",
            warm.descriptors,
            last.descriptors,
            warm.threads,
            last.threads,
            warm.private_kib,
            last.private_kib
        )
    }
}

/// Twice the same is rest.
fn settled(pid: u32) -> Holdings {
    let mut before = held_by(pid);
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = held_by(pid);
        if now.threads >= before.threads && now.descriptors >= before.descriptors {
            return now;
        }
        before = now;
    }
}

impl fmt::Display for Fort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, attack {}", self.kind.name(), self.attacks)
    }
}

/// A tmpfs of bounded size.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: PathBuf) -> Self {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", SHARE, "siege"])
            .arg(&place);
        assert!(mount.status().unwrap().success(), "{}", place.display());
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|it| it.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

//! A daemon under load, and what it holds.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use lab::Random;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::inside::{Holdings, Process};
use lab::netns::NetNamespace;
use lab::process::{Daemon, DaemonBuilder, binary};
use lab::scratch::Scratch;

/// For what takes no time, except on a machine with much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Rounds before a daemon is as large as it gets.
pub(crate) const WARM: u64 = 3;
/// Rounds until an allocator has all it will keep: it does so for each of some threads at a time.
const SETTLED: u64 = 100;
/// No daemon has more memory of its own, in KiB.
const MOST: u64 = 64 << 10;
/// One that has settled takes no more than that, in KiB.
const SLACK: u64 = 16 << 10;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Census {
    held: Holdings,
    /// Mappings of guest memory.
    mappings: usize,
}

impl Census {
    fn of(process: &Process) -> Self {
        let maps = process.text("maps");
        Self {
            held: process.holdings(),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
        }
    }

    /// Whether there is no more of anything but memory.
    fn is_within(&self, other: &Self) -> bool {
        self.held.descriptors <= other.held.descriptors
            && self.held.threads <= other.held.threads
            && self.mappings <= other.mappings
    }
}

pub(crate) struct Subject {
    name: &'static str,
    pub(crate) scratch: Scratch,
    daemon: Daemon,
    program: PathBuf,
    arguments: Vec<String>,
    namespace: Option<NetNamespace>,
    /// It is killed now and then.
    pub(crate) mortal: bool,
    /// How far the clocks of the next process are ahead, in seconds.
    pub(crate) clocks_ahead: u32,
    pub(crate) round: u64,
    random: Random,
    warm: Option<Census>,
    last: Option<Census>,
    /// Files that it has made and mounts that there are, when it was warm.
    left: Option<(BTreeSet<PathBuf>, usize)>,
    kills: u64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pause: Duration,
}

impl Subject {
    /// `options` are the daemon's, with `@` for its directory.
    pub(crate) fn new(
        name: &'static str,
        (program, options): (&str, &[&str]),
        (mortal, seed): (bool, u64),
        namespace: Option<NetNamespace>,
    ) -> Self {
        let scratch = Scratch::in_memory("soak").unwrap();
        for directory in ["shared", "state", "mount"] {
            scratch.dir(directory).unwrap();
        }
        let directory = scratch.path().to_str().unwrap();
        let common = ["--socket-path", "@/socket"];
        let all = common.iter().chain(options);
        let arguments: Vec<String> = all.map(|it| it.replace('@', directory)).collect();
        let program = binary(program).unwrap();
        fs::File::create(scratch.join("disk"))
            .and_then(|file| file.set_len(super::disk::LEN))
            .unwrap();
        let builder = Daemon::builder(&program).args(&arguments);
        let daemon = start(builder, namespace.as_ref(), &scratch.join("socket"));
        Self {
            name,
            scratch,
            daemon,
            program,
            arguments,
            namespace,
            mortal,
            clocks_ahead: 0,
            round: 0,
            random: Random::new(
                name.bytes()
                    .fold(seed, |sum, byte| sum.rotate_left(7) ^ u64::from(byte)),
            ),
            warm: None,
            last: None,
            left: None,
            kills: 0,
            requests: 0,
            bytes: 0,
            pause: Duration::ZERO,
        }
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random.below(below)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.join("socket")
    }

    /// Ends the daemon by SIGKILL and starts the next one; `go_on` returns when it serves.
    pub(crate) fn kill<T>(&mut self, go_on: impl FnOnce(&Self) -> T) -> T {
        let began = Instant::now();
        self.daemon.kill().unwrap();
        // The kernel may hold the socket for a while: nobody is to find the dead by it.
        let _ = fs::remove_file(self.socket());
        let builder = Daemon::builder(&self.program).args(&self.arguments);
        let builder = builder.clocks_ahead(self.clocks_ahead);
        self.daemon = start(builder, self.namespace.as_ref(), &self.socket());
        let result = go_on(self);
        self.kills += 1;
        self.pause = self.pause.max(began.elapsed());
        result
    }

    pub(crate) fn front_end(&self, memory: &GuestMemory) -> FrontEnd {
        let mut front_end = FrontEnd::connect(&self.socket(), SOON).unwrap();
        front_end.set_timeout(SOON);
        let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        front_end.handshake(features::VERSION_1, protocol).unwrap();
        front_end.set_mem_table(memory).unwrap();
        front_end
    }

    /// Compares with what there was after the first rounds, when no front end is there.
    pub(crate) fn measure(&mut self) {
        if self.round < WARM {
            return;
        }
        let process = self.process();
        let expected = *self.warm.get_or_insert_with(|| {
            // A session's threads take a moment to end: twice the same is rest.
            let mut before = Census::of(&process);
            loop {
                thread::sleep(Duration::from_millis(300));
                let now = Census::of(&process);
                if before.is_within(&now) {
                    break now;
                }
                before = now;
            }
        });
        let deadline = Instant::now() + SOON;
        let now = loop {
            let now = Census::of(&process);
            if now.is_within(&expected) {
                break now;
            }
            assert!(Instant::now() < deadline, "{self}: {expected:?}, {now:?}");
            thread::sleep(Duration::from_millis(20));
        };
        assert!(now.held.private_kib <= MOST, "{self}: {now:?}");
        if self.round == SETTLED {
            self.warm = Some(now);
        } else if self.round > SETTLED && !self.mortal {
            let (now_kib, then_kib) = (now.held.private_kib, expected.held.private_kib);
            let grown = now_kib.saturating_sub(then_kib);
            assert!(grown <= SLACK, "{self}: {expected:?}, {now:?}");
        }
        self.last = Some(now);
        let left = self.left_now();
        assert_eq!(
            self.left.get_or_insert(left.clone()),
            &left,
            "{}",
            self.name
        );
    }

    /// What its directories hold beside the shared data, and how many mounts there are below it.
    fn left_now(&self) -> (BTreeSet<PathBuf>, usize) {
        let in_directory = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let mut files: BTreeSet<PathBuf> = in_directory(self.scratch.path()).into_iter().collect();
        files.extend(in_directory(&self.scratch.join("state")));
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        // Those of others on the host come and go.
        let directory = self.scratch.path().to_str().unwrap();
        let below = mounts.lines().filter(|line| line.contains(directory));
        (files, below.count())
    }

    /// Ends it as a user would.
    pub(crate) fn stop(&mut self) {
        assert_eq!(self.mortal, self.kills > 0, "{}", self.name);
        let exit = self.daemon.terminate(SOON).unwrap();
        assert!(exit.status.success(), "{}: {}", self.name, exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
        assert!(!self.socket().exists(), "{}'s socket is left", self.name);
    }

    /// The process that serves.
    pub(crate) fn process(&self) -> Process {
        Process::serving(&self.daemon)
    }

    /// Ends it and tells what became of it.
    pub(crate) fn end(mut self) -> Report {
        self.stop();
        Report {
            name: self.name,
            rounds: self.round + 1,
            kills: self.kills,
            requests: self.requests,
            bytes: self.bytes,
            pause: self.pause,
            warm: self.warm.unwrap(),
            last: self.last.unwrap(),
        }
    }
}

/// Where it is, for a failure's message.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, round, kills) = (self.name, self.round, self.kills);
        write!(f, "{name}, round {round}, {kills} kills")
    }
}

fn start(builder: DaemonBuilder, namespace: Option<&NetNamespace>, socket: &Path) -> Daemon {
    let mut daemon = match namespace {
        Some(namespace) => namespace.spawn(builder).unwrap(),
        None => builder.spawn().unwrap(),
    };
    daemon.wait_listening(socket, SOON).unwrap();
    daemon
}

/// What became of a daemon.
pub(crate) struct Report {
    name: &'static str,
    rounds: u64,
    kills: u64,
    requests: u64,
    bytes: u64,
    pause: Duration,
    warm: Census,
    last: Census,
}

impl Report {
    pub(crate) const HEAD: &str = "| daemon | front ends | kills | requests | MiB | longest pause | descriptors | \
                                   threads | private KiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |";
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            rounds,
            kills,
            requests,
            ..
        } = self;
        let (mib, pause) = (self.bytes >> 20, self.pause.as_secs_f64());
        let (warm, last) = (self.warm.held, self.last.held);
        write!(
            f,
            "| {name} | {rounds} | {kills} | {requests} | {mib} | {pause:.2} s | {} → {} | {} → {} | {} → {} |",
            warm.descriptors,
            last.descriptors,
            warm.threads,
            last.threads,
            warm.private_kib,
            last.private_kib,
        )
    }
}

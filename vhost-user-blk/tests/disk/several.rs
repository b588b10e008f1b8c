//! A daemon with several disks.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lab::frontend::blk::Blk;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::inside::{Holdings, Process};
use lab::process::Daemon;
use lab::scratch::Scratch;

use super::{ALL, PROGRAM, SOON};

/// A daemon with a control socket and disks named by letters.
pub struct Disks {
    pub daemon: Daemon,
    pub scratch: Scratch,
}

impl Disks {
    pub fn start(test: &str, names: &[&str]) -> Self {
        Self::start_with(test, names, &[])
    }

    pub fn start_with(test: &str, names: &[&str], options: &[&str]) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let control = scratch.join("ctl");
        let mut daemon = Daemon::builder(PROGRAM).arg("--control").arg(&control);
        daemon = daemon.args(options.iter().copied());
        for name in names {
            let spec = Self::describe(&scratch, name);
            daemon = daemon.arg("--disk").arg(spec);
        }
        let daemon = daemon.spawn_listening(&control, SOON).unwrap();
        Self { daemon, scratch }
    }

    /// A disk of 1 MiB for `--disk` and `add`; its image is made.
    pub fn describe(scratch: &Scratch, name: &str) -> String {
        let image = scratch.image(&format!("{name}.img"), 1 << 20).unwrap();
        let socket = scratch.join(&format!("{name}.sock"));
        let (image, socket) = (image.display(), socket.display());
        format!("path={image},socket={socket},name={name},queues=2")
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.scratch.join(&format!("{name}.sock"))
    }

    pub fn ctl(&self, words: &[&str]) -> Output {
        Command::new(PROGRAM)
            .arg("ctl")
            .arg(self.scratch.join("ctl"))
            .args(words)
            .output()
            .unwrap()
    }

    /// What a command that is carried out prints.
    pub fn told(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the daemon has taken so many requests of a disk, and not done them.
    pub fn wait_in_flight(&self, name: &str, count: usize) {
        let deadline = Instant::now() + SOON;
        let expected = format!(r#""in_flight":{count}}}"#);
        loop {
            let told = self.told(&["stats", name]);
            if told.trim_end().ends_with(&expected) {
                return;
            }
            assert!(Instant::now() < deadline, "not {expected}: {told}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the daemon holds.
    pub fn holdings(&self) -> Holdings {
        Process::serving(&self.daemon).holdings()
    }

    /// What a command that is refused says.
    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        assert!(!output.status.success(), "{words:?} was carried out");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A front end on `socket` with one queue.
pub fn attach(socket: &Path) -> (FrontEnd, Blk) {
    let (front_end, queue) = attach_some(socket, 1);
    (front_end, queue.into_iter().next().unwrap())
}

pub fn attach_some(socket: &Path, queues: usize) -> (FrontEnd, Vec<Blk>) {
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = FrontEnd::connect(socket, SOON).unwrap();
    let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end
        .handshake(ALL | features::VERSION_1, protocol)
        .unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let queues = (0..queues).map(|queue| Blk::new(front_end.set_up_queue(queue, 128).unwrap()));
    let queues = queues.collect();
    (front_end, queues)
}

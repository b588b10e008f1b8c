//! A full file system under the image.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;
mod image;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Range, status};
use lab::process::Daemon;

/// An ext4 of 8 MiB, mounted over a loop device.
struct Small(PathBuf);

impl Small {
    fn mount(image: &Path, at: PathBuf) -> Self {
        lab::need::root().unwrap();
        std::fs::create_dir(&at).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&at));
        Self(at)
    }
}

impl Drop for Small {
    /// The kernel holds the image for a moment after the daemon has gone: its io_uring ends late.
    fn drop(&mut self) {
        let deadline = Instant::now() + SOON;
        while !Command::new("umount")
            .arg(&self.0)
            .status()
            .is_ok_and(|status| status.success())
        {
            if Instant::now() > deadline {
                eprintln!("{} stays mounted", self.0.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_full_file_system_gives_errors_and_the_disk_goes_on() {
    let mut disk = Disk::start("blk-full", 1 << 20);
    disk.daemon.terminate(SOON).unwrap();
    let small = disk.scratch.image("small.ext4", 8 << 20).unwrap();
    let mounted = Small::mount(&small, disk.scratch.join("mounted"));
    let image = mounted.0.join("disk.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    disk.daemon = Daemon::builder(PROGRAM)
        .args(["--direct", "--queues", "1", "--socket-path"])
        .arg(&disk.socket)
        .arg("--blk-file")
        .arg(&image)
        .spawn_listening(&disk.socket, SOON)
        .unwrap();
    let (front_end, mut blk) = disk.driver(ALL);
    let bytes = lab::pattern(5, 1 << 20);
    let answers: Vec<u8> = (0..32)
        .map(|n| blk.write(n * 2048, &bytes).unwrap())
        .collect();
    assert_eq!(answers[0], status::OK);
    assert_eq!(answers[31], status::IOERR, "{answers:?}");
    disk.daemon
        .wait_stderr("No space left on device", SOON)
        .unwrap();
    // What was acknowledged is there, and the disk goes on.
    assert!(blk.read(0, 1 << 20).unwrap() == (status::OK, bytes));
    assert_eq!(blk.flush().unwrap(), status::OK);
    drop((front_end, blk));
    disk.daemon.terminate(SOON).unwrap();
}

#[test]
fn a_qcow2_image_on_a_full_file_system_is_not_damaged() {
    let mut disk = Disk::start("qcow2-full", 1 << 20);
    disk.daemon.terminate(SOON).unwrap();
    let small = disk.scratch.image("small.ext4", 8 << 20).unwrap();
    let mounted = Small::mount(&small, disk.scratch.join("mounted"));
    let image = image::create(&mounted.0.join("disk.qcow2"), 64 << 20, "");
    disk.daemon = Daemon::builder(PROGRAM)
        .args(["--format", "qcow2", "--queues", "1", "--socket-path"])
        .arg(&disk.socket)
        .arg("--blk-file")
        .arg(&image)
        .spawn_listening(&disk.socket, SOON)
        .unwrap();
    let (front_end, mut blk) = disk.driver(ALL);
    let bytes = lab::pattern(5, 1 << 20);
    let write = |blk: &mut lab::frontend::blk::Blk, n: u64| blk.write(n * 2048, &bytes).unwrap();
    let answers: Vec<u8> = (0..16).map(|n| write(&mut blk, n)).collect();
    assert_eq!(answers[0], status::OK);
    assert_eq!(answers[15], status::IOERR, "{answers:?}");
    disk.daemon
        .wait_stderr("No space left on device", SOON)
        .unwrap();
    assert!(blk.read(0, 1 << 20).unwrap() == (status::OK, bytes.clone()));
    // What is given back can be used again.
    let first = [Range {
        sector: 0,
        sectors: 8192,
        flags: 0,
    }];
    assert_eq!(blk.discard(&first).unwrap(), status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);
    assert_eq!(write(&mut blk, 40), status::OK);
    drop((front_end, blk));
    disk.daemon.terminate(SOON).unwrap();
    image::check(&image, false);
}

//! Commands to a running daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Data, kind, status};
use lab::guest::QemuGuest;
use lab::scratch::Scratch;

fn controlled(test: &str) -> Disk {
    let scratch = Scratch::new(test).unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    let control = scratch.join("control");
    Disk::serve(scratch, image, |d| d.arg("--control").arg(control))
}

fn ctl(disk: &Disk, command: &str) -> Output {
    let words = command.split(' ');
    Command::new(PROGRAM)
        .arg("ctl")
        .arg(disk.scratch.join("control"))
        .args(words)
        .output()
        .unwrap()
}

fn grow(disk: &Disk, bytes: u64) {
    std::fs::File::options()
        .write(true)
        .open(&disk.image)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

#[test]
fn a_grown_image_is_taken_up_while_running() {
    let disk = controlled("blk-resize");
    let (mut front_end, mut blk) = disk.driver(ALL);
    let mut channel = front_end.open_backend_channel().unwrap();
    assert_eq!(
        blk.write(2048, &[7; 512]).unwrap(),
        status::IOERR,
        "beyond the end"
    );
    grow(&disk, 2 << 20);
    let output = ctl(&disk, "resize");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"capacity\":2097152"));
    assert!(
        channel.wait_config_changed(SOON).unwrap(),
        "the front end was not told"
    );
    assert_eq!(front_end.get_config(0, 8).unwrap(), 4096_u64.to_le_bytes());
    assert_eq!(blk.write(2048, &[7; 512]).unwrap(), status::OK);
    assert_eq!(blk.read(2048, 512).unwrap(), (status::OK, vec![7; 512]));
}

#[test]
fn a_disk_does_not_shrink() {
    let disk = controlled("blk-shrink");
    grow(&disk, 512);
    let output = ctl(&disk, "resize");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("shrunk to 512 bytes; a disk can only grow"),
        "{stderr}"
    );
    assert!(String::from_utf8_lossy(&ctl(&disk, "stats").stdout).contains("1048576"));
}

#[test]
fn nonsense_is_answered_and_the_next_client_served() {
    let disk = controlled("blk-ctl-nonsense");
    let mut stream = UnixStream::connect(disk.scratch.join("control")).unwrap();
    for line in [
        "{}\n",
        "resize\n",
        "{\"command\":\"explode\"}\n",
        "[[[[\n",
        "\n",
    ] {
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(
            answer.starts_with("{\"error\":\"not a command"),
            "{line:?} gave {answer}"
        );
    }
    drop(stream);
    assert!(ctl(&disk, "stats").status.success());
    disk.assert_serves();
    let nobody = Command::new(PROGRAM)
        .args(["ctl", "/no/such", "stats"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&nobody.stderr);
    assert!(
        stderr.contains("cannot talk to the daemon at /no/such: No such file"),
        "{stderr}"
    );
}

#[test]
fn a_qemu_guest_sees_the_disk_grow() {
    let disk = controlled("blk-grow-qemu");
    let script = "cat /sys/block/vda/size; echo ready; read line; sleep 1; cat /sys/block/vda/size";
    let mut guest = QemuGuest::new(script).blk(&disk.socket).start().unwrap();
    guest.wait_output("ready").unwrap();
    grow(&disk, 4 << 20);
    assert!(ctl(&disk, "resize").status.success());
    guest.write(b"go\n").unwrap();
    let output = guest.wait().unwrap().success().unwrap();
    assert!(
        output.contains("2048") && output.contains("8192"),
        "{output}"
    );
}

/// Reads that complete in one second, many at a time.
fn reads_in_a_second(blk: &mut lab::frontend::blk::Blk) -> u64 {
    let until = Instant::now() + Duration::from_secs(1);
    let mut done = 0;
    while Instant::now() < until {
        while blk.queue().in_flight() < 30 {
            blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
        }
        done += blk.wait_any(Duration::from_millis(500)).unwrap().len() as u64;
    }
    done
}

#[test]
fn a_limit_holds_within_a_second_and_can_be_lifted() {
    let disk = controlled("blk-limit");
    let (_front_end, mut blk) = disk.driver(ALL);
    let free = reads_in_a_second(&mut blk);
    assert!(free > 2000, "only {free} reads a second without a limit");
    assert!(ctl(&disk, "limit --iops 300").status.success());
    reads_in_a_second(&mut blk);
    let limited = reads_in_a_second(&mut blk);
    assert!(
        (150..450).contains(&limited),
        "{limited} reads a second with a limit of 300"
    );
    let stats = ctl(&disk, "stats");
    assert!(String::from_utf8_lossy(&stats.stdout).contains("\"iops\":300"));
    assert!(ctl(&disk, "limit").status.success());
    let lifted = reads_in_a_second(&mut blk);
    assert!(
        lifted > 1000,
        "only {lifted} reads a second after the limit was lifted"
    );
}

#[test]
fn a_limited_queue_stops_at_once() {
    let disk = controlled("blk-limit-stop");
    assert!(ctl(&disk, "limit --iops 1 --iops-burst 1").status.success());
    let (mut front_end, mut blk) = disk.driver(ALL);
    for _ in 0..10 {
        blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    let base = front_end.stop_queue(0).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "the stop took {:?}",
        started.elapsed()
    );
    assert!(
        base < 5,
        "{base} of 10 requests passed a limit of one a second"
    );
    assert_eq!(blk.queue().used_idx().unwrap(), base);
}

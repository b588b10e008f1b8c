//! Start-up, options, sockets: what can go wrong is said in one sentence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use lab::frontend::fs::Fs;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::process::Daemon;
use lab::scratch::Scratch;
use share::session::Session;
use share::{PROGRAM, SOON, Share};

fn says(args: &[&str], what: &str) {
    let mut daemon = Daemon::builder(PROGRAM).args(args).spawn().unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(!exit.status.success(), "{args:?} was accepted");
    assert!(
        exit.stderr.contains(what),
        "{args:?} gave:\n{}",
        exit.stderr
    );
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

#[test]
fn wrong_options_are_refused_in_one_sentence() {
    let scratch = Scratch::new("fs-options").unwrap();
    let file = scratch.file("file", "").unwrap();
    let (dir, file) = (scratch.path().to_str().unwrap(), file.to_str().unwrap());
    let socket = &scratch.join("s").into_os_string().into_string().unwrap();
    says(&["--socket-path", socket], "give --shared-dir DIR");
    says(&["--shared-dir", dir], "give --socket-path PATH or --fd FD");
    says(
        &["--shared-dir", dir, "--fd", "77"],
        "--fd 77 is not an open descriptor",
    );
    says(
        &["--shared-dir", "/no/such", "--socket-path", socket],
        "cannot open the shared directory /no/such: No such file",
    );
    says(
        &["--shared-dir", file, "--socket-path", socket],
        "Not a directory",
    );
    says(
        &["--shared-dir", dir, "--socket-path", "/no/such/dir/s"],
        "cannot listen on socket /no/such/dir/s",
    );
    says(
        &["--shared-dir", dir, "--socket-path", file],
        "exists and is not a socket",
    );
    let long = "t".repeat(37);
    says(
        &["--shared-dir", dir, "--socket-path", socket, "--tag", &long],
        "is empty or longer than 36 bytes",
    );
    says(
        &[
            "--shared-dir",
            dir,
            "--socket-path",
            socket,
            "--queues",
            "0",
        ],
        "from 1 to 63",
    );
    says(
        &[
            "--shared-dir",
            dir,
            "--socket-path",
            socket,
            "--cache",
            "some",
        ],
        "invalid value",
    );
    says(
        &["--shared-dir", dir, "--socket-path", socket, "--no-such"],
        "unexpected argument",
    );
}

#[test]
fn a_socket_in_use_is_refused() {
    let share = Share::start("fs-in-use");
    let (socket, dir) = (
        share.socket.to_str().unwrap(),
        share.directory.to_str().unwrap(),
    );
    says(
        &["--shared-dir", dir, "--socket-path", socket],
        "is in use by another process",
    );
    share.assert_serves();
}

/// As an ordinary user: what cannot be read is named, and what can be is shared.
#[test]
fn an_ordinary_user_shares_what_is_its_own() {
    lab::need::root().unwrap();
    let scratch = Scratch::new("fs-user").unwrap();
    let set = |path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    set(scratch.path(), 0o777);
    let closed = scratch.dir("closed").unwrap();
    set(&closed, 0o700);
    let own = scratch.dir("own").unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    // The build directory may be closed to others: run a copy.
    let program = scratch.join("virtiofsd");
    std::fs::copy(PROGRAM, &program).unwrap();
    let socket = scratch.join("s");
    let command = |dir| {
        let mut command = Command::new(&program);
        command
            .arg("--socket-path")
            .arg(&socket)
            .arg("--once")
            .arg("--shared-dir")
            .arg(dir);
        command.uid(65534).gid(65534);
        command
    };
    let output = command(&closed).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        stderr.contains("cannot open the shared directory"),
        "{stderr}"
    );
    assert!(stderr.contains("Permission denied"), "{stderr}");

    let mut daemon = command(&own).spawn().unwrap();
    use_first_file(FrontEnd::connect(&socket, SOON).unwrap());
    let status = std::fs::metadata(own.join("file")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&status),
        65534,
        "the daemon's own"
    );
    assert!(daemon.wait().unwrap().success());
}

fn use_first_file(mut front_end: FrontEnd) {
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    front_end.handshake(u64::MAX, ProtocolFeatures::MQ).unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let mut fs = Fs::new(front_end.set_up_queue(1, 64).unwrap());
    fs.init(38, 0).unwrap();
    let file = Session(&mut fs).create("file");
    assert_eq!(Session(&mut fs).write(file, 0, b"content").error, 0);
    assert_eq!(Session(&mut fs).read(file, 0, 100).body, b"content");
}

#[test]
fn a_killed_daemons_socket_is_taken_over() {
    let mut share = Share::start("fs-takeover");
    share.daemon.kill().unwrap();
    let again = Daemon::builder(PROGRAM)
        .arg("--socket-path")
        .arg(&share.socket);
    let again = again.arg("--shared-dir").arg(&share.directory);
    share.daemon = again.spawn_listening(&share.socket, SOON).unwrap();
    share.assert_serves();
    let exit = share.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!share.socket.exists(), "the socket's file is left behind");
}

#[test]
fn capabilities_are_printed_without_other_options() {
    let mut daemon = Daemon::builder(PROGRAM)
        .arg("--print-capabilities")
        .spawn()
        .unwrap();
    assert!(daemon.wait_exit(SOON).unwrap().status.success());
    assert!(
        daemon.stdout().contains("\"type\": \"fs\""),
        "{}",
        daemon.stdout()
    );
}

#[test]
fn once_means_one_front_end() {
    let mut share = Share::start_with("fs-once", |daemon| daemon.arg("--once"));
    share.assert_serves();
    let exit = share.daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}

#[test]
fn inherited_sockets_are_served() {
    let scratch = Scratch::new("fs-fd").unwrap();
    let dir = scratch.dir("shared").unwrap();
    let builder = || Daemon::builder(PROGRAM).arg("--shared-dir").arg(&dir);
    let socket = scratch.join("s.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let _listening = builder().inherit("--fd", listener.into()).spawn().unwrap();
    for _ in 0..2 {
        use_first_file(FrontEnd::connect(&socket, SOON).unwrap());
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut connected = builder().inherit("--fd", theirs.into()).spawn().unwrap();
    use_first_file(FrontEnd::from_stream(ours).unwrap());
    let exit = connected.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}

#[test]
fn metrics_tell_what_was_served() {
    use std::io::Read;
    let scratch = Scratch::new("fs-metrics").unwrap();
    let metrics = scratch.join("metrics");
    let share = Share::start_with("fs-metrics", |d| d.arg("--metrics-socket").arg(&metrics));
    let (_front_end, mut fs) = share.mounted();
    let file = Session(&mut fs).create("file");
    Session(&mut fs).write(file, 0, &[7; 1000]);
    Session(&mut fs).read(file, 0, 4096);
    let mut text = String::new();
    UnixStream::connect(&metrics)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    for line in ["requests_total", "bytes_in_total", "bytes_out_total"] {
        assert!(text.contains(&format!("ringside_{line}")), "{text}");
    }
    let sum = |name: &str| -> u64 {
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("ringside_{name}{{")));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    assert_eq!(
        (sum("bytes_in_total"), sum("bytes_out_total")),
        (1000, 1000)
    );
    assert_eq!(sum("requests_total"), 4);
}

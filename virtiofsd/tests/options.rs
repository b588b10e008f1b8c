//! What options do, seen from the guest's side and from the host's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use lab::guest::UmlGuest;
use lab::inside::Process;
use lab::process::Daemon;
use lab::scratch::Scratch;
use rustix::fs::XattrFlags;
use share::session::{OPEN, Session, words};
use share::{PROGRAM, SOON, Share, TAG};
use virtiofsd::fuse::Opcode;

fn start(test: &str, options: &[&str]) -> Share {
    Share::start_with(test, |daemon| daemon.args(options))
}

fn owner(path: &Path) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap();
    (status.uid(), status.gid())
}

#[test]
fn users_are_translated_both_ways() {
    lab::need::root().unwrap();
    let share = start(
        "fs-translate",
        &[
            "--translate-uid=map:0:5000:100",
            "--translate-gid=map:0:6000:100",
            "--translate-uid=forbid-guest:200:10",
        ],
    );
    let path = |name: &str| share.directory.join(name);
    fs::write(path("hosts"), "").unwrap();
    chown(path("hosts"), Some(5007), Some(6008)).unwrap();
    let (_front_end, mut driver) = share.mounted();
    let mut session = Session(&mut driver);
    let (node, shown) = session.create_as(3, "guests").unwrap();
    assert_eq!((shown, owner(&path("guests"))), ((3, 3), (5003, 6003)));
    assert_eq!(session.chown(node, 99, 150), Ok((99, 150)));
    assert_eq!(
        owner(&path("guests")),
        (5099, 150),
        "no rule is about group 150"
    );
    let node = session.lookup("hosts").unwrap();
    assert_eq!(session.owner(node), Ok((7, 8)));
    assert_eq!(session.create_as(205, "forbidden"), Err(libc::EPERM));
    assert_eq!(session.chown(node, 200, 0), Err(libc::EPERM));
    assert_eq!(owner(&path("hosts")), (5007, 6008));
    assert!(!path("forbidden").exists());
}

/// With a real guest's kernel, and listings (READDIRPLUS) and statx too.
#[test]
fn a_guest_sees_its_own_users() {
    lab::need::root().unwrap();
    let share = start(
        "fs-translate-guest",
        &[
            "--translate-uid=map:0:5000:100",
            "--translate-gid=map:0:6000:100",
        ],
    );
    chown(&share.directory, Some(5000), Some(6000)).unwrap();
    fs::write(share.directory.join("hosts"), "").unwrap();
    chown(share.directory.join("hosts"), Some(5007), Some(6008)).unwrap();
    let script = format!(
        "mkdir /mnt/share && mount -t virtiofs {TAG} /mnt/share && cd /mnt/share && \
         mkdir made && : > made/file && chown 9:10 made/file && \
         stat -c '%n %u %g' . hosts made made/file && ls -ln made | tail -1 | cut -d' ' -f3,4"
    );
    let guest = UmlGuest::new(script)
        .fs(&share.socket)
        .limit(Duration::from_secs(120));
    let output = guest.run().unwrap().success().unwrap().replace('\r', "");
    assert_eq!(output, ". 0 0\nhosts 7 8\nmade 0 0\nmade/file 9 10\n9 10\n");
    assert_eq!(owner(&share.directory.join("made")), (5000, 6000));
    assert_eq!(owner(&share.directory.join("made/file")), (5009, 6010));
}

fn set_xattr(session: &mut Session<'_>, node: u64, name: &str) -> i32 {
    let head = words(&[5, 0]);
    let body: &[&[u8]] = &[&head, name.as_bytes(), b"\0", b"value"];
    session.call(Opcode::Setxattr, node, body, 0).error
}

fn get_xattr(session: &mut Session<'_>, node: u64, name: &str) -> Result<Vec<u8>, i32> {
    let head = words(&[64, 0]);
    let body: &[&[u8]] = &[&head, name.as_bytes(), b"\0"];
    let reply = session.call(Opcode::Getxattr, node, body, 64);
    if reply.error == 0 {
        Ok(reply.body)
    } else {
        Err(reply.error)
    }
}

/// The way people use it: a guest's trusted.* without CAP_SYS_ADMIN on the host.
#[test]
fn attributes_have_other_names_on_the_host() {
    let share = start("fs-xattrmap", &["--xattrmap=/map/trusted./user.virtiofs./"]);
    let path = share.directory.join("file");
    let (_front_end, mut driver) = share.mounted();
    let mut session = Session(&mut driver);
    let (node, _) = session.create("file");
    assert_eq!(set_xattr(&mut session, node, "trusted.a"), 0);
    assert_eq!(
        get_xattr(&mut session, node, "trusted.a"),
        Ok(b"value".to_vec())
    );
    let mut value = [0; 5];
    rustix::fs::getxattr(&path, "user.virtiofs.trusted.a", &mut value[..]).unwrap();
    assert_eq!(&value, b"value");
    // By its name on the host the guest's own users could set it.
    let direct = "user.virtiofs.trusted.a";
    assert_eq!(set_xattr(&mut session, node, direct), -libc::EPERM);
    assert_eq!(get_xattr(&mut session, node, direct), Err(-libc::EPERM));
    assert_eq!(set_xattr(&mut session, node, "user.b"), 0);
    rustix::fs::setxattr(&path, "user.c", b"", XattrFlags::empty()).unwrap();
    let list = session
        .call(Opcode::Listxattr, node, &[&words(&[512, 0])], 512)
        .body;
    let mut names: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|n| !n.is_empty())
        .collect();
    names.sort();
    let expected: [&[u8]; 3] = [b"trusted.a", b"user.b", b"user.c"];
    assert_eq!(names, expected);
    let remove: &[&[u8]] = &[b"trusted.a\0"];
    assert_eq!(session.call(Opcode::Removexattr, node, remove, 0).error, 0);
    assert_eq!(
        get_xattr(&mut session, node, "trusted.a"),
        Err(-libc::ENODATA)
    );
}

fn open_files(share: &Share) -> usize {
    Process::serving(&share.daemon).descriptors().len()
}

#[test]
fn handles_are_used_as_asked() {
    lab::need::root().unwrap();
    for (when, more) in [
        ("never", true),
        ("as-needed", true),
        ("prefer", false),
        ("mandatory", false),
    ] {
        let option = format!("--inode-file-handles={when}");
        let share = start("fs-handles", &[&option]);
        for number in 0..100 {
            fs::write(share.directory.join(number.to_string()), number.to_string()).unwrap();
        }
        let (_front_end, mut driver) = share.mounted();
        let mut session = Session(&mut driver);
        session.lookup("0").unwrap();
        let before = open_files(&share);
        let nodes: Vec<_> = (0..100)
            .map(|n| session.lookup(&n.to_string()).unwrap())
            .collect();
        let after = open_files(&share);
        assert_eq!(after >= before + 90, more, "{when}: {before}, {after}");
        let handle = session.open(nodes[42]);
        assert_eq!(session.read((nodes[42], handle), 0, 10).body, b"42");
    }
}

/// Flags of the daemon's own open file (proc(5), fdinfo).
fn flags_on_host(share: &Share, file: &Path) -> Vec<u32> {
    let inside = Process::serving(&share.daemon);
    let inode = fs::metadata(file).unwrap().ino();
    let of_file = |(number, _): &(String, _)| {
        fs::metadata(inside.path("fd").join(number)).is_ok_and(|status| status.ino() == inode)
    };
    let flags = |(number, _): (String, _)| {
        let info = inside.text(&format!("fdinfo/{number}"));
        let line = info.lines().find_map(|line| line.strip_prefix("flags:"));
        u32::from_str_radix(line.unwrap().trim(), 8).unwrap()
    };
    inside
        .descriptors()
        .into_iter()
        .filter(of_file)
        .map(flags)
        .collect()
}

fn opened_with(options: &[&str], flags: i32) -> Vec<u32> {
    let share = start("fs-open-flags", options);
    let path = share.directory.join("file");
    fs::write(&path, "content").unwrap();
    let (_front_end, mut driver) = share.mounted();
    let mut session = Session(&mut driver);
    let node = session.lookup("file").unwrap();
    let body = words(&[flags.cast_unsigned(), 0]);
    assert_eq!(session.call(Opcode::Open, node, &[&body], OPEN).error, 0);
    flags_on_host(&share, &path)
}

#[test]
fn flags_reach_the_host_where_they_are_allowed() {
    for (option, flag) in [
        ("--allow-direct-io", libc::O_DIRECT),
        ("--preserve-noatime", libc::O_NOATIME),
    ] {
        let has = |opened: Vec<u32>| opened.iter().any(|o| o & flag.cast_unsigned() != 0);
        assert!(!has(opened_with(&[], flag)), "without {option}");
        assert!(has(opened_with(&[option], flag)), "with {option}");
    }
}

#[test]
fn the_limit_of_open_files_is_as_asked() {
    let limit = |options: &[&str]| {
        let share = start("fs-nofile", options);
        let limits = Process::serving(&share.daemon).text("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let fields: Vec<String> = line
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        fields[3].parse::<u64>().unwrap()
    };
    let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    assert_eq!(limit(&["--rlimit-nofile=3000"]), 3000);
    assert_eq!(Some(limit(&["--rlimit-nofile=0"])), ours);
}

#[test]
fn a_group_may_connect() {
    lab::need::root().unwrap();
    let share = start("fs-group", &["--socket-group", "daemon"]);
    let status = fs::symlink_metadata(&share.socket).unwrap();
    assert_eq!(status.permissions().mode() & 0o777, 0o660);
    assert_eq!((status.uid(), status.gid()), (0, 1));
}

/// /dev/log is replaced in a mount namespace of the daemon's own.
#[test]
fn logs_go_to_syslog() {
    lab::need::root().unwrap();
    let scratch = Scratch::new("fs-syslog").unwrap();
    let (dev, shared) = (scratch.dir("dev").unwrap(), scratch.dir("shared").unwrap());
    let syslog = UnixDatagram::bind(dev.join("log")).unwrap();
    syslog.set_read_timeout(Some(SOON)).unwrap();
    let mut daemon = Daemon::builder("/usr/bin/unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /dev && exec \"$@\"",
        ])
        .arg(&dev)
        .arg(PROGRAM)
        .args(["--syslog", "--socket-path"])
        .arg(scratch.join("s"))
        .arg("--shared-dir")
        .arg(&shared)
        .spawn()
        .unwrap();
    let mut line = [0; 1024];
    let mut lines = String::new();
    // The second one comes from inside the sandbox.
    for _ in 0..2 {
        let len = syslog.recv(&mut line).unwrap();
        lines.push_str(std::str::from_utf8(&line[..len]).unwrap());
        lines.push('\n');
    }
    // LOG_USER and LOG_INFO.
    let tag = format!("<14>virtiofsd[{}]: ", daemon.pid());
    assert!(lines.lines().all(|line| line.starts_with(&tag)), "{lines}");
    assert!(
        lines.contains("sharing") && lines.contains("waiting for a front end"),
        "{lines}"
    );
    let exit = daemon.terminate(SOON).unwrap();
    assert!(exit.stderr.is_empty(), "{}", exit.stderr);
}

//! `kill -9` at any moment: a guest goes on with the next process (`--state-dir`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;
mod surviving;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use lab::frontend::GuestMemory;
use lab::frontend::fs::{Fs, REQUEST_QUEUE};
use lab::inside::Process;
use lab::process::Daemon;
use rustix::process::Resource;
use share::session::{ENTRY, ROOT, Session, number, transfer, words};
use share::{PROGRAM, SOON};
use surviving::{AFTER_A_SYNC, Guest, builder, launch};
use virtiofsd::fuse::Opcode;
use virtiofsd::keeper::Keeper;

fn named(session: &mut Session<'_>, opcode: Opcode, parent: u64, name: &str) -> Result<u64, i32> {
    let arguments = match opcode {
        Opcode::Mkdir => words(&[0o755, 0]),
        _ => Vec::new(),
    };
    let body: &[&[u8]] = &[&arguments, name.as_bytes(), b"\0"];
    let reply = session.call(opcode, parent, body, ENTRY);
    match reply.error {
        0 if reply.body.is_empty() => Ok(0),
        0 => Ok(number(&reply.body, 0)),
        error => Err(-error),
    }
}

fn rename(session: &mut Session<'_>, from: (u64, &str), to: (u64, &str)) -> i32 {
    let target = to.0.to_le_bytes();
    let body: &[&[u8]] = &[&target, from.1.as_bytes(), b"\0", to.1.as_bytes(), b"\0"];
    session.call(Opcode::Rename, from.0, body, 0).error
}

fn listed(session: &mut Session<'_>, directory: (u64, u64)) -> usize {
    let body = transfer(directory.1, 0, 4096);
    let reply = session.call(Opcode::Readdir, directory.0, &[&body], 4096);
    assert_eq!(reply.error, 0);
    reply.body.len()
}

fn open_files_and_nodes_go_on(test: &str, options: &[&str]) {
    let mut guest = Guest::start(test, options);
    let mut session = guest.session();
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"before ").error, 0);
    let directory = named(&mut session, Opcode::Mkdir, ROOT, "directory").unwrap();
    let below = named(&mut session, Opcode::Mkdir, directory, "below").unwrap();
    let deep = named(&mut session, Opcode::Mkdir, below, "deep").unwrap();
    let opened = session.call(Opcode::Opendir, directory, &[&words(&[0, 0])], 16);
    let listing = (directory, number(&opened.body, 0));
    let entries = listed(&mut session, listing);
    // Known by another name than at first, and in another directory.
    assert_eq!(rename(&mut session, (ROOT, "file"), (below, "moved")), 0);
    assert_eq!(
        rename(&mut session, (ROOT, "directory"), (ROOT, "renamed")),
        0
    );
    for round in 0..3 {
        guest.kill();
        let mut session = guest.session();
        assert_eq!(session.write(file, 7, b"after").error, 0, "round {round}");
        assert_eq!(session.read(file, 0, 100).body, b"before after");
        assert_eq!(listed(&mut session, listing), entries);
        assert_eq!(
            named(&mut session, Opcode::Lookup, below, "moved"),
            Ok(file.0),
            "the same node"
        );
        assert_eq!(named(&mut session, Opcode::Lookup, below, "deep"), Ok(deep));
        let new = session.create(&format!("new{round}"));
        assert!(new.0 != file.0 && new.1 != file.1);
        assert_eq!(session.write(new, 0, b"new").error, 0);
    }
    let moved = guest.path("renamed/below/moved");
    assert_eq!(fs::read(moved).unwrap(), b"before after");
    let mut session = guest.session();
    // One lookup by CREATE and three by LOOKUP: forgotten, it is gone.
    assert_eq!(session.release(Opcode::Release, file), 0);
    session.forget(file.0, 4);
    guest.kill();
    let reply = guest
        .session()
        .call(Opcode::Getattr, file.0, &[&[0; 16]], 104);
    assert_eq!(-reply.error, libc::ESTALE);
    guest.share.daemon.terminate(SOON).unwrap();
}

#[test]
fn open_files_and_nodes_go_on_by_handle() {
    open_files_and_nodes_go_on("survival-handle", &[]);
}

#[test]
fn open_files_and_nodes_go_on_by_name() {
    open_files_and_nodes_go_on("survival-name", &["--inode-file-handles", "never"]);
}

/// Nodes beyond the limit of open files have no descriptor before or after.
#[test]
fn nodes_without_a_descriptor_go_on() {
    open_files_and_nodes_go_on("survival-few", &["--max-open", "1"]);
    let by_name = ["--max-open", "1", "--inode-file-handles", "never"];
    open_files_and_nodes_go_on("survival-few-names", &by_name);
    open_files_and_nodes_go_on("survival-prefer", &["--inode-file-handles", "prefer"]);
}

#[test]
fn what_is_another_file_now_is_stale() {
    for (test, handles) in [
        ("survival-other", "as-needed"),
        ("survival-other-name", "never"),
    ] {
        let mut guest = Guest::start(test, &["--inode-file-handles", handles]);
        let mut session = guest.session();
        let file = session.create("file");
        assert_eq!(session.write(file, 0, b"one").error, 0);
        guest.die();
        fs::remove_file(guest.path("file")).unwrap();
        fs::write(guest.path("file"), "another").unwrap();
        guest.go_on();
        let mut session = guest.session();
        assert_ne!(session.read(file, 0, 100).error, 0, "{handles}");
        let node = session.lookup("file").unwrap();
        assert_ne!(node, file.0, "{handles}");
        let handle = session.open(node);
        assert_eq!(session.read((node, handle), 0, 100).body, b"another");
    }
}

#[test]
fn a_guest_that_mounts_anew_starts_afresh() {
    let mut guest = Guest::start("survival-anew", &[]);
    let file = guest.session().create("file");
    guest.kill();
    guest.fs.init(38, 0).unwrap();
    assert_ne!(guest.session().read(file, 0, 1).error, 0);
    let again = guest.session().create("again");
    guest.kill();
    let mut session = guest.session();
    assert_ne!(session.read(file, 0, 1).error, 0);
    assert_eq!(session.write(again, 0, b"again").error, 0);
}

#[test]
fn another_directory_is_not_taken_for_the_one_remembered() {
    let mut guest = Guest::start("survival-directory", &[]);
    let file = guest.session().create("file");
    guest.die();
    fs::rename(
        &guest.share.directory,
        guest.share.scratch.join("elsewhere"),
    )
    .unwrap();
    fs::create_dir(&guest.share.directory).unwrap();
    guest.go_on();
    let reply = guest.session().read(file, 0, 1);
    assert_eq!(-reply.error, libc::ENOTCONN, "nobody has mounted");
    let log = guest.share.daemon.stderr();
    assert!(log.contains("is about another directory"), "{log}");
}

#[test]
fn a_daemon_that_gives_less_than_the_guest_uses_is_refused() {
    let scratch = "survival-features";
    let mut guest = Guest::start(scratch, &["--writeback"]);
    // FUSE_WRITEBACK_CACHE.
    guest.fs.init(38, 1 << 16).unwrap();
    guest.die();
    let exit = builder(&guest.share, &[])
        .spawn()
        .unwrap()
        .wait_exit(SOON)
        .unwrap();
    assert!(!exit.status.success());
    let words = [
        "goes on with features 0x10000",
        "the same options as before",
    ];
    for word in words {
        assert!(exit.stderr.contains(word), "{}", exit.stderr);
    }
    guest.go_on();
}

#[test]
fn two_daemons_do_not_share_a_state_directory() {
    let guest = Guest::start("survival-two", &[]);
    let socket = guest.share.scratch.join("other.sock");
    let mut other = Daemon::builder(PROGRAM)
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(&guest.share.directory)
        .arg("--state-dir")
        .arg(guest.share.scratch.join("state"))
        .spawn()
        .unwrap();
    let exit = other.wait_exit(2 * SOON).unwrap();
    assert!(!exit.status.success());
    assert!(
        exit.stderr.contains("is in use by another process"),
        "{}",
        exit.stderr
    );
}

/// A keeper of its own.
fn keeper(socket: &Path) -> Daemon {
    Daemon::builder(PROGRAM)
        .args(["keep", "--socket-path"])
        .arg(socket)
        .spawn_listening(socket, SOON)
        .unwrap()
}

fn tmpfile(session: &mut Session<'_>) -> (u64, u64) {
    let arguments = words(&[libc::O_RDWR.cast_unsigned(), 0o100_600, 0, 0]);
    let body: &[&[u8]] = &[&arguments, b"/\0"];
    let reply = session.call(Opcode::Tmpfile, ROOT, body, ENTRY + 16);
    assert_eq!(reply.error, 0);
    (number(&reply.body, 0), number(&reply.body, ENTRY))
}

fn link(session: &mut Session<'_>, node: u64, name: &str) {
    let body: &[&[u8]] = &[&node.to_le_bytes(), name.as_bytes(), b"\0"];
    let reply = session.call(Opcode::Link, ROOT, body, ENTRY);
    assert_eq!((reply.error, number(&reply.body, 0)), (0, node));
}

/// A file is found by whatever name is left, also one that it got after it had none.
#[test]
fn files_go_on_by_the_names_they_have_left() {
    let never = ["--inode-file-handles", "never"];
    let few = ["--inode-file-handles", "never", "--max-open", "1"];
    for options in [&never[..], &few] {
        let mut guest = Guest::start("survival-names", options);
        let mut session = guest.session();
        let files = ["linked", "moved", "twice"].map(|name| session.create(name));
        let unnamed = tmpfile(&mut session);
        for (at, file) in files.into_iter().chain([unnamed]).enumerate() {
            let content = [b'a' + at as u8];
            assert_eq!(session.write(file, 0, &content).error, 0);
        }
        let remove = |session: &mut Session<'_>, name| {
            named(session, Opcode::Unlink, ROOT, name).unwrap();
        };
        let [linked, moved, twice] = files;
        link(&mut session, linked.0, "other");
        remove(&mut session, "other");
        link(&mut session, moved.0, "new");
        assert_eq!(rename(&mut session, (ROOT, "moved"), (ROOT, "there")), 0);
        remove(&mut session, "there");
        // Not by a name that is another file's meanwhile.
        link(&mut session, twice.0, "second");
        remove(&mut session, "twice");
        remove(&mut session, "second");
        session.create("twice");
        link(&mut session, unnamed.0, "named");
        assert_eq!(rename(&mut session, (ROOT, "named"), (ROOT, "again")), 0);
        for _ in 0..2 {
            guest.kill();
            let mut session = guest.session();
            for (file, content) in [(linked, b"a"), (moved, b"b"), (unnamed, b"d")] {
                let read = session.read(file, 0, 100);
                assert_eq!(
                    (read.error, &read.body[..]),
                    (0, &content[..]),
                    "{options:?}"
                );
            }
            assert_ne!(session.read(twice, 0, 100).error, 0);
        }
    }
}

#[test]
fn files_without_a_name_go_on_with_a_keeper() {
    for handles in ["never", "as-needed"] {
        let place = lab::scratch::Scratch::new("survival-keeper").unwrap();
        let socket = place.join("keeper.sock");
        let _keeper = keeper(&socket);
        let path = socket.to_str().unwrap();
        let options = ["--keeper", path, "--inode-file-handles", handles];
        let mut guest = Guest::start("survival-keeper", &options);
        let mut session = guest.session();
        let removed = session.create("removed");
        let replaced = session.create("replaced");
        let by = session.create("by");
        let unnamed = tmpfile(&mut session);
        for file in [removed, replaced, by, unnamed] {
            assert_eq!(session.write(file, 0, b"before ").error, 0);
        }
        let unlinked = session.call(Opcode::Unlink, ROOT, &[b"removed\0"], 0);
        assert_eq!(unlinked.error, 0);
        assert_eq!(rename(&mut session, (ROOT, "by"), (ROOT, "replaced")), 0);
        for _ in 0..2 {
            guest.kill();
            let mut session = guest.session();
            for file in [removed, replaced, by, unnamed] {
                assert_eq!(session.write(file, 7, b"after").error, 0, "{handles}");
                assert_eq!(session.read(file, 0, 100).body, b"before after");
            }
        }
        let mut session = guest.session();
        assert_eq!(session.release(Opcode::Release, removed), 0);
        session.forget(removed.0, 1);
        guest.kill();
        assert!(!exists(&mut guest.session(), removed.0));
        assert!(exists(&mut guest.session(), unnamed.0));
        // Nothing is left of a guest that has gone.
        guest.fs.init(38, 0).unwrap();
        guest.kill();
        assert!(!exists(&mut guest.session(), unnamed.0));
    }
}

/// What a keeper holds, and what it is told to hold instead.
fn swap_held(socket: &Path, node: u64, other: Option<&fs::File>) -> Vec<u64> {
    let (keeper, held) = Keeper::connect(socket).unwrap();
    if let Some(file) = other {
        assert!(keeper.hold(node, file.as_fd()));
    }
    held.into_keys().collect()
}

/// It would take its room on the disk, and in the keeper, for as long as that runs.
#[test]
fn a_held_file_that_is_another_one_is_let_go() {
    let place = lab::scratch::Scratch::new("survival-held").unwrap();
    let socket = place.join("keeper.sock");
    let _keeper = keeper(&socket);
    let options = ["--keeper", socket.to_str().unwrap()];
    let mut guest = Guest::start("survival-held", &options);
    let (lost, kept) = (tmpfile(&mut guest.session()), tmpfile(&mut guest.session()));
    guest.die();
    let other = fs::File::create(place.join("other")).unwrap();
    let mut held = swap_held(&socket, lost.0, Some(&other));
    held.sort_unstable();
    assert_eq!(held, [lost.0, kept.0]);
    guest.go_on();
    assert!(!exists(&mut guest.session(), lost.0));
    assert!(exists(&mut guest.session(), kept.0));
    guest.die();
    assert_eq!(swap_held(&socket, lost.0, None), [kept.0]);
}

#[test]
fn a_keeper_that_is_gone_costs_only_what_it_held() {
    let place = lab::scratch::Scratch::new("survival-no-keeper").unwrap();
    let socket = place.join("keeper.sock");
    let mut first = keeper(&socket);
    let options = ["--keeper", socket.to_str().unwrap()];
    let mut guest = Guest::start("survival-no-keeper", &options);
    let (kept, lost) = (
        guest.session().create("kept"),
        tmpfile(&mut guest.session()),
    );
    first.kill().unwrap();
    // One more, which nobody holds.
    tmpfile(&mut guest.session());
    guest.die();
    let exit = builder(&guest.share, &guest.options).spawn().unwrap();
    let exit = { exit }.wait_exit(SOON).unwrap();
    assert!(exit.stderr.contains("no keeper answers"), "{}", exit.stderr);
    let _second = keeper(&socket);
    guest.go_on();
    let mut session = guest.session();
    assert_eq!(session.write(kept, 0, b"x").error, 0);
    assert_ne!(session.read(lost, 0, 1).error, 0);
}

/// The usual limit is for programs that hold few files: a guest has more of them without a name.
#[test]
fn a_keeper_holds_more_files_than_the_usual_limit() {
    let place = lab::scratch::Scratch::new("survival-many-nameless").unwrap();
    let socket = place.join("keeper.sock");
    let limited = Daemon::builder("prlimit").args(["--nofile=64:4096", PROGRAM, "keep"]);
    let _keeper = limited
        .arg("--socket-path")
        .arg(&socket)
        .spawn_listening(&socket, SOON)
        .unwrap();
    let options = ["--keeper", socket.to_str().unwrap()];
    let mut guest = Guest::start("survival-many-nameless", &options);
    let unnamed: Vec<_> = (0..200).map(|_| tmpfile(&mut guest.session())).collect();
    guest.kill();
    let mut session = guest.session();
    let lost = unnamed.iter().filter(|it| !exists(&mut session, it.0));
    assert_eq!(lost.count(), 0);
}

#[test]
fn one_keeper_for_one_socket() {
    let place = lab::scratch::Scratch::new("survival-keepers").unwrap();
    let socket = place.join("keeper.sock");
    let _first = keeper(&socket);
    let second = |path: &Path| {
        let keep = Daemon::builder(PROGRAM).args(["keep", "--socket-path"]);
        let mut keep = keep.arg(path).spawn().unwrap();
        keep.wait_exit(SOON).unwrap().stderr
    };
    assert!(second(&socket).contains("in use by another process"));
    let file = place.join("file");
    fs::write(&file, "not a socket").unwrap();
    assert!(second(&file).contains("cannot listen"));
    assert_eq!(fs::read(&file).unwrap(), b"not a socket");
}

/// The next process gives what the last one has answered, or finds out what it did.
#[test]
fn requests_in_flight_happen_once() {
    let mut guest = Guest::start("survival-once", &[]);
    let (mut made, mut uncounted) = (0, 0);
    for round in 0..40_u64 {
        let mut session = guest.session();
        let file = session.create(&format!("log{round}"));
        let append = libc::O_APPEND.cast_unsigned();
        let mut tickets = Vec::new();
        for at in 0..40 {
            let name = format!("d{round}-{at}");
            let body: &[&[u8]] = &[&words(&[0o755, 0]), name.as_bytes(), b"\0"];
            let caller = lab::frontend::fs::Caller::root(ROOT);
            let ticket = session
                .0
                .submit(Opcode::Mkdir as u32, caller, body, &[ENTRY])
                .unwrap();
            tickets.push((ticket, Some(name)));
            let data = format!("line {at}\n");
            let mut write = transfer(file.1, 0, data.len() as u32);
            write[32..36].copy_from_slice(&append.to_le_bytes());
            let caller = lab::frontend::fs::Caller::root(file.0);
            let ticket = session
                .0
                .submit(
                    Opcode::Write as u32,
                    caller,
                    &[&write, data.as_bytes()],
                    &[8],
                )
                .unwrap();
            tickets.push((ticket, None));
        }
        // Somewhere in the middle of it.
        std::thread::sleep(Duration::from_micros(round * 53 % 1500));
        guest.kill();
        let mut nodes = Vec::new();
        for (ticket, name) in tickets {
            let reply = guest.fs.wait(ticket).unwrap();
            assert_eq!(reply.error, 0, "round {round}: {name:?}");
            if let Some(name) = name {
                nodes.push((number(&reply.body, 0), name));
            }
        }
        let log = fs::read_to_string(guest.path(&format!("log{round}"))).unwrap();
        let mut lines: Vec<&str> = log.lines().collect();
        lines.sort_unstable_by_key(|line| line[5..].parse::<u32>().unwrap());
        let expected: Vec<String> = (0..40).map(|at| format!("line {at}")).collect();
        assert_eq!(lines, expected, "round {round}");
        for (node, name) in nodes {
            let mut session = guest.session();
            // The replies' lookup and this one, no more.
            assert_eq!(named(&mut session, Opcode::Lookup, ROOT, &name), Ok(node));
            session.forget(node, 2);
            // Who died in the middle of it had counted, and could not say so: one request a round.
            if exists(&mut session, node) {
                session.forget(node, 1);
                uncounted += 1;
            }
            assert!(!exists(&mut session, node), "round {round}: {name}");
            made += 1;
        }
    }
    assert_eq!(made, 1600);
    assert!(uncounted <= 40, "{uncounted}");
    assert_eq!(entries(&guest.share.directory), 1640);
}

/// A sync takes as long as the disk needs, and may be in flight when each of several processes dies.
#[test]
fn syncs_in_flight_are_answered_however_often_the_daemon_is_killed_meanwhile() {
    let mut guest = Guest::start("survival-sync", &[]);
    let file = guest.session().create("file");
    let data = vec![7; 256 << 10];
    // `struct fuse_fsync_in`: the handle, flags, padding.
    let sync = [&file.1.to_le_bytes()[..], &[0; 8]].concat();
    for round in 0..3_u64 {
        for at in 0..16 {
            let offset = (round * 16 + at) * data.len() as u64;
            assert_eq!(guest.session().write(file, offset, &data).error, 0);
        }
        let caller = lab::frontend::fs::Caller::root(file.0);
        let sync = |_| {
            guest
                .fs
                .submit(Opcode::Fsync as u32, caller, &[&sync], &[0])
        };
        let tickets: Vec<_> = (0..8).map(sync).collect();
        // In the middle of the syncs, then of what the next process repeats, and the next.
        for pause in [10, 0, 20] {
            std::thread::sleep(Duration::from_millis(pause));
            guest.kill();
        }
        guest.fs.exchange().set_timeout(AFTER_A_SYNC);
        for ticket in tickets {
            let ticket = ticket.unwrap();
            assert_eq!(guest.fs.wait(ticket).unwrap().error, 0, "round {round}");
        }
    }
    let len = fs::metadata(guest.path("file")).unwrap().len();
    assert_eq!(len, 48 * data.len() as u64);
}

/// Looks names up until the daemon ends; the nodes that it answered, and the request that it did not.
fn look_up_until_it_ends(guest: &mut Guest) -> (Vec<u64>, lab::frontend::Ticket) {
    let mut nodes = Vec::new();
    for number in 0..FILES {
        let name = format!("n{number}");
        let caller = lab::frontend::fs::Caller::root(ROOT);
        let body: &[&[u8]] = &[name.as_bytes(), b"\0"];
        let asked = guest
            .fs
            .submit(Opcode::Lookup as u32, caller, body, &[ENTRY]);
        loop {
            if let Some((_, reply)) = guest.fs.wait_any(PAUSE).unwrap().pop() {
                assert_eq!(reply.error, 0, "{name}");
                nodes.push(self::number(&reply.body, 0));
                break;
            }
            if !guest.share.daemon.is_running() {
                return (nodes, asked.unwrap());
            }
        }
    }
    panic!("all of {FILES} nodes were remembered without memory to have");
}

const FILES: usize = 4000;
const PAUSE: Duration = Duration::from_secs(1);

/// A node takes little memory. Where even that is not to be had, the process ends and says so.
#[test]
fn without_memory_for_another_node_the_daemon_ends_and_the_next_one_goes_on() {
    let mut guest = Guest::start("survival-memory", &[]);
    let file = guest.session().create("file");
    assert_eq!(guest.session().write(file, 0, b"before ").error, 0);
    for number in 0..FILES {
        fs::File::create(guest.path(&format!("n{number}"))).unwrap();
    }
    let process = Process::serving(&guest.share.daemon);
    process.limit(Resource::Data, "VmData", 0);
    let (nodes, asked) = look_up_until_it_ends(&mut guest);
    let exit = guest.share.daemon.wait_exit(SOON).unwrap();
    println!(
        "{} nodes, then {}: {}",
        nodes.len(),
        exit.status,
        exit.stderr
    );
    assert!(!exit.status.success());
    assert!(
        exit.stderr.contains("memory allocation of"),
        "{}",
        exit.stderr
    );
    let _ = fs::remove_file(&guest.share.socket);
    guest.go_on();
    let reply = guest.fs.wait(asked).unwrap();
    assert_eq!(reply.error, 0);
    let mut session = guest.session();
    assert_eq!(session.write(file, 7, b"after").error, 0);
    assert_eq!(session.read(file, 0, 100).body, b"before after");
    for (at, node) in nodes.iter().enumerate().step_by(100) {
        assert_eq!(session.lookup(&format!("n{at}")), Ok(*node));
    }
}

fn exists(session: &mut Session<'_>, node: u64) -> bool {
    session.call(Opcode::Getattr, node, &[&[0; 16]], 104).error == 0
}

fn entries(directory: &Path) -> usize {
    assert!(fs::metadata(directory).unwrap().nlink() > 2);
    fs::read_dir(directory).unwrap().count()
}

/// Words of the file of nodes that tell the boot.
const BOOT: u64 = 8;

#[test]
fn a_state_directory_of_a_former_boot_is_started_anew() {
    let mut guest = Guest::start("fs-reboot", &["--xattr"]);
    let file = guest.session().create("file");
    assert_eq!(guest.session().write(file, 0, b"kept").error, 0);
    guest.die();
    let nodes = guest.share.scratch.join("state/virtiofsd.nodes");
    let nodes = fs::File::options()
        .read(true)
        .write(true)
        .open(nodes)
        .unwrap();
    let mut boot = [0; 16];
    nodes.read_exact_at(&mut boot, BOOT * 8).unwrap();
    assert_ne!(boot, [0; 16], "not the file's layout");
    nodes.write_all_at(&[1; 16], BOOT * 8).unwrap();
    // With options that the guest of before could not have gone on with.
    guest.options = vec!["--no-xattr".into()];
    guest.memory = GuestMemory::with_size(64 << 20).unwrap();
    guest.share.daemon = launch(&guest.share, &guest.options);
    let mut front_end = guest.share.front_end(u64::MAX, &guest.memory);
    guest.fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 1024).unwrap());
    guest.front_end = Some(front_end);
    let log = guest.share.daemon.stderr();
    assert!(log.contains("of a former boot of the host"), "{log}");
    guest.fs.init(38, 0).unwrap();
    let mut session = guest.session();
    let node = named(&mut session, Opcode::Lookup, ROOT, "file").unwrap();
    assert_ne!(node, file.0, "a number of before");
    assert_ne!(session.read(file, 0, 4).error, 0, "a handle of before");
}

//! Requests over the ring, at the host's speed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::frontend::fs::{Caller, Fs, REQUEST_QUEUE};
use lab::frontend::{GuestMemory, features};
use lab::inside::Process;
use share::Share;
use share::session::{ENTRY, OPEN, ROOT, Session, number, transfer, words};
use virtiofsd::fuse::Opcode;

const MIB: u32 = 1 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| (n * 7 + n / 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn the_configuration_space_names_the_file_system() {
    let share = Share::start("fs-config");
    let (mut front_end, _fs) = share.driver();
    let mut expected = b"share".to_vec();
    expected.resize(36, 0);
    expected.extend(2_u32.to_le_bytes());
    assert_eq!(front_end.get_config(0, 40).unwrap(), expected);
    assert_eq!(front_end.negotiated().unwrap().queues, Some(3));
}

/// As one buffer, in pages, through indirect tables, with EVENT_IDX and without.
#[test]
fn data_arrive_as_they_were_sent_however_they_are_cut() {
    let ways = [
        (u64::MAX, true),
        (u64::MAX, false),
        (features::VERSION_1, false),
    ];
    for (wanted, indirect) in ways {
        for share in Share::each_medium("fs-data") {
            data_arrive(&share, wanted, indirect);
        }
    }
}

fn data_arrive(share: &Share, wanted: u64, indirect: bool) {
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = share.front_end(wanted, &memory);
    let mut fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 1024).unwrap());
    fs.exchange().use_indirect(indirect);
    fs.init(38, 0).unwrap();
    let mut session = Session(&mut fs);
    let file = session.create("file");
    let content = pattern(MIB as usize + 100);
    let written = session.write(file, 0, &content[..MIB as usize]);
    assert_eq!(
        (written.error, number(&written.body, 0)),
        (0, u64::from(MIB))
    );
    session.write(file, u64::from(MIB), &content[MIB as usize..]);
    assert_eq!(fs::read(share.directory.join("file")).unwrap(), content);
    let whole = session.read(file, 0, MIB);
    assert_eq!(
        (whole.error, whole.body == content[..MIB as usize]),
        (0, true)
    );
    let end = session.read(file, u64::from(MIB) - 3, 4096);
    assert_eq!(end.body, content[MIB as usize - 3..]);
    assert_eq!(session.read(file, u64::from(MIB) * 9, 4096).body, b"");
    let body = share::session::transfer(file.1, 1, 10_000);
    let cut: Vec<usize> = vec![1000; 10];
    let caller = Caller::root(file.0);
    let ticket = fs
        .submit(Opcode::Read as u32, caller, &[&body], &cut)
        .unwrap();
    assert_eq!(fs.wait(ticket).unwrap().body, content[1..10_001]);
    assert_eq!(Session(&mut fs).release(Opcode::Release, file), 0);
}

/// A guest with large pages reads more at once, and takes an answer that is too short for the file's end.
#[test]
fn a_guest_with_pages_of_64_kib_reads_all_it_asks_for() {
    const PAGE: usize = 64 << 10;
    const PAGES: usize = 256;
    for share in Share::each_medium("fs-large-pages") {
        let content = pattern(PAGE * PAGES + 1);
        fs::write(share.directory.join("file"), &content).unwrap();
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = share.front_end(u64::MAX, &memory);
        let mut fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 1024).unwrap());
        fs.init(38, 0).unwrap();
        let mut session = Session(&mut fs);
        let node = session.lookup("file").unwrap();
        let file = (node, session.open(node));
        let body = transfer(file.1, 0, (PAGE * PAGES) as u32);
        let caller = Caller::root(node);
        let ticket = fs
            .submit(Opcode::Read as u32, caller, &[&body], &[PAGE; PAGES])
            .unwrap();
        let read = fs.wait(ticket).unwrap();
        assert_eq!((read.error, read.body.len()), (0, PAGE * PAGES));
        assert!(read.body == content[..PAGE * PAGES]);
        let more = Session(&mut fs).read(file, 0, (PAGE * PAGES) as u32 + 1);
        assert_eq!((more.error, more.body.len()), (-libc::EINVAL, 0));
    }
}

/// A guest's kernel writes dirty pages back by whatever handle it finds, one that appends included.
#[test]
fn only_writes_that_append_go_to_the_end() {
    for (mode, kill) in [(0o644, 0), (0o4755, 4)] {
        for share in Share::each_medium("fs-append") {
            appending_writes(&share, mode, kill);
        }
    }
}

fn appending_writes(share: &Share, mode: u32, kill: u32) {
    const CACHE: u32 = 1;
    let append = libc::O_APPEND.cast_unsigned();
    let path = share.directory.join("file");
    fs::write(&path, "0123456789").unwrap();
    let set_mode = || fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode();
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let node = session.lookup("file").unwrap();
    let flags = words(&[append | libc::O_RDWR.cast_unsigned(), 0]);
    let opened = session.call(Opcode::Open, node, &[&flags], OPEN);
    let handle = number(&opened.body, 0);
    let mut write = |data: &[u8], how: u32, flags: u32| {
        let head = transfer(handle, 2, data.len() as u32);
        let tail = words(&[how, 0, 0, flags, 0]);
        let body: &[&[u8]] = &[&head[..20], &tail, data];
        let reply = session.call(Opcode::Write, node, body, 8);
        assert_eq!(
            (reply.error, number(&reply.body, 0)),
            (0, data.len() as u64)
        );
    };
    write(b"ab", CACHE | kill, append);
    set_mode();
    write(b"end", kill, append);
    write(b"cd", 0, 0);
    let content = fs::read(&path).unwrap();
    assert_eq!(content, b"01cd456789end", "{}", content.escape_ascii());
}

/// What was only read has nothing to flush: one request less for every file that is read.
#[test]
fn closing_what_was_only_read_needs_no_request() {
    const NOFLUSH: u8 = 1 << 5;
    let share = Share::start("fs-noflush");
    fs::write(share.directory.join("file"), "").unwrap();
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let node = session.lookup("file").unwrap();
    for (flags, expected) in [
        (libc::O_RDONLY, NOFLUSH),
        (libc::O_WRONLY, 0),
        (libc::O_RDWR, 0),
    ] {
        let flags = words(&[flags.cast_unsigned(), 0]);
        let opened = session.call(Opcode::Open, node, &[&flags], OPEN);
        assert_eq!(opened.body[8] & NOFLUSH, expected, "{flags:?}");
    }
}

/// Many at a time, answered in any order.
#[test]
fn reads_in_flight_do_not_mix() {
    for share in Share::each_medium("fs-flight") {
        mixed_reads(&share);
    }
}

fn mixed_reads(share: &Share) {
    let content = pattern(4 << 20);
    fs::write(share.directory.join("file"), &content).unwrap();
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let node = session.lookup("file").unwrap();
    let file = (node, session.open(node));
    for _ in 0..4 {
        let sent: Vec<_> = (0..32_u32)
            .map(|n| (n, session.submit_read(file, u64::from(n) * 100_003, 65_536)))
            .collect();
        for (n, ticket) in sent {
            let at = n as usize * 100_003;
            let expected = &content[at..content.len().min(at + 65_536)];
            assert_eq!(session.0.wait(ticket).unwrap().body, expected, "{n}");
        }
    }
}

#[test]
fn two_queues_work_on_one_tree() {
    let share = Share::start("fs-queues");
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = share.front_end(u64::MAX, &memory);
    let mut queues: Vec<Fs> = (0..3)
        .map(|index| Fs::new(front_end.set_up_queue(index, 128).unwrap()))
        .collect();
    queues[1].init(38, 0).unwrap();
    std::thread::scope(|scope| {
        for (index, queue) in queues.iter_mut().enumerate().skip(1) {
            scope.spawn(move || {
                let mut session = Session(queue);
                for n in 0..200 {
                    // Half of the files belong to both queues.
                    let name = if n % 2 == 0 {
                        format!("both-{n}")
                    } else {
                        format!("{index}-{n}")
                    };
                    let file = session.create(&name);
                    assert_eq!(session.write(file, 0, name.as_bytes()).error, 0);
                    assert_eq!(session.read(file, 0, 100).body, name.as_bytes());
                    assert_eq!(session.release(Opcode::Release, file), 0);
                }
            });
        }
    });
    // The queue of high priority forgets what the others looked up.
    let node = Session(&mut queues[2]).lookup("both-0").unwrap();
    Session(&mut queues[0]).forget(node, 100);
    let attributes = Session(&mut queues[1]).call(Opcode::Getattr, node, &[&[0; 16]], 104);
    assert_eq!(attributes.error, -libc::ESTALE);
    assert_eq!(fs::read_dir(&share.directory).unwrap().count(), 300);
}

/// Open files of the daemon, by its own account in /proc.
fn descriptors(share: &Share) -> usize {
    fs::read_dir(format!("/proc/{}/fd", share.daemon.serving_pid().unwrap()))
        .unwrap()
        .count()
}

#[test]
fn a_file_that_did_not_change_stays_in_the_guests_cache() {
    const KEEP_CACHE: u32 = 1 << 1;
    let share = Share::start("fs-keep-cache");
    let path = share.directory.join("program");
    std::fs::write(&path, b"first").unwrap();
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let node = session.lookup("program").unwrap();
    let mut keeps = || {
        let reply = session.call(Opcode::Open, node, &[&words(&[0, 0])], OPEN);
        lab::frontend::fs::u32_at(&reply.body, 8).unwrap() & KEEP_CACHE != 0
    };
    assert!(!keeps(), "opened for the first time");
    assert!(
        !keeps(),
        "a fresh change might be followed by one with the same time"
    );
    std::thread::sleep(std::time::Duration::from_millis(3100));
    assert!(!keeps(), "nothing was remembered yet");
    assert!(keeps() && keeps(), "unchanged");
    std::fs::write(&path, b"other").unwrap();
    assert!(!keeps(), "changed on the host, same size");
    assert!(!keeps(), "changed a moment ago");
}

#[test]
fn a_walk_that_is_forgotten_leaves_no_descriptor_open() {
    let share = Share::start("fs-forget");
    for n in 0..300 {
        fs::write(share.directory.join(format!("file-{n}")), "").unwrap();
    }
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let before = descriptors(&share);
    for _ in 0..2 {
        let opened = session.call(Opcode::Opendir, ROOT, &[&words(&[0, 0])], 16);
        let handle = number(&opened.body, 0);
        let nodes = list_plus(&mut session, handle);
        assert_eq!(nodes.len(), 300);
        assert!(descriptors(&share) >= before + 301);
        for node in nodes {
            session.forget(node, 1);
        }
        assert_eq!(session.release(Opcode::Releasedir, (ROOT, handle)), 0);
        assert_eq!(descriptors(&share), before);
    }
    // What a guest leaves behind goes when the next one comes.
    for n in 0..50 {
        session.create(&format!("file-{n}"));
    }
    assert_eq!(descriptors(&share), before + 100);
    fs.init(38, 0).unwrap();
    assert_eq!(descriptors(&share), before);
}

#[test]
fn more_nodes_than_may_be_open_are_kept_by_handle() {
    let share = Share::start_with("fs-handles", |daemon| daemon.args(["--max-open", "10"]));
    for n in 0..200 {
        fs::write(share.directory.join(format!("file-{n}")), n.to_string()).unwrap();
    }
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let before = descriptors(&share);
    let nodes: Vec<u64> = (0..200)
        .map(|n| session.lookup(&format!("file-{n}")).unwrap())
        .collect();
    assert!(
        descriptors(&share) < before + 20,
        "{} open",
        descriptors(&share)
    );
    for (n, node) in nodes.iter().enumerate() {
        assert_eq!(
            session.lookup(&format!("file-{n}")),
            Ok(*node),
            "the same node again"
        );
        let handle = session.open(*node);
        assert_eq!(
            session.read((*node, handle), 0, 100).body,
            n.to_string().as_bytes()
        );
        assert_eq!(session.release(Opcode::Release, (*node, handle)), 0);
    }
    // A file that is gone, and the next one, which may have got its inode number.
    let gone = nodes[199];
    fs::remove_file(share.directory.join("file-199")).unwrap();
    for n in 0..50 {
        let name = format!("new-{n}");
        fs::write(share.directory.join(&name), "").unwrap();
        assert_ne!(
            session.lookup(&name).unwrap(),
            gone,
            "another file is another node"
        );
    }
    let stale = session.call(Opcode::Getattr, gone, &[&[0; 16]], 104).error;
    assert_eq!(stale, -libc::ESTALE);
}

/// To open by handle, something of the file system stays open: no file whose room would then never be free.
#[test]
fn a_file_of_another_mount_is_freed_when_nobody_has_it_any_more() {
    lab::need::root().unwrap();
    let script = "mkdir sub && mount -t tmpfs none sub && echo content > sub/first";
    let share = Share::start_in_namespace("fs-handles-mount", script, |daemon| {
        // For the root and for sub.
        daemon.args(["--max-open", "2"])
    });
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let sub = session.lookup("sub").unwrap();
    let first = session.call(Opcode::Lookup, sub, &[b"first\0"], ENTRY);
    assert_eq!(first.error, 0);
    let removed = session.call(Opcode::Unlink, sub, &[b"first\0"], 0);
    assert_eq!(removed.error, 0);
    session.forget(number(&first.body, 0), 1);
    // Behind that.
    session.lookup("sub").unwrap();
    let open = Process::serving(&share.daemon).descriptors();
    let is_first = |file: &std::path::Path| file.to_string_lossy().contains("first");
    assert!(!open.iter().any(|(_, file)| is_first(file)), "{open:?}");
}

/// READDIRPLUS to the end, in small steps: the nodes looked up.
fn list_plus(session: &mut Session<'_>, handle: u64) -> Vec<u64> {
    let (mut nodes, mut offset) = (Vec::new(), 0);
    loop {
        let body = share::session::transfer(handle, offset, 2000);
        let listed = session.call(Opcode::Readdirplus, ROOT, &[&body], 2000);
        assert_eq!(listed.error, 0);
        let mut rest = &listed.body[..];
        if rest.is_empty() {
            return nodes;
        }
        while !rest.is_empty() {
            let node = number(rest, 0);
            offset = number(rest, ENTRY + 8);
            let name = u32::from_le_bytes(rest[ENTRY + 16..ENTRY + 20].try_into().unwrap());
            nodes.extend((node != 0).then_some(node));
            rest = &rest[(ENTRY + 24 + name as usize).next_multiple_of(8)..];
        }
    }
}

#[test]
fn requests_later_than_the_guests_kernels_are_served() {
    let share = Share::start("fs-later");
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let from = session.create("from");
    let to = session.create("to");
    session.write(from, 0, b"0123456789");
    // STATX by handle, 7.39.
    let body = [
        &words(&[1, 0])[..],
        &from.1.to_le_bytes(),
        &words(&[0, 0x7ff]),
    ]
    .concat();
    let status = session.call(Opcode::Statx, from.0, &[&body], 288);
    assert_eq!(
        (status.error, number(&status.body, 32 + 40)),
        (0, 10),
        "stx_size"
    );
    // COPY_FILE_RANGE.
    let numbers = [from.1, 2, to.0, to.1, 0, 5, 0];
    let body: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let copied = session.call(Opcode::CopyFileRange, from.0, &[&body], 8);
    assert_eq!((copied.error, number(&copied.body, 0)), (0, 5));
    assert_eq!(fs::read(share.directory.join("to")).unwrap(), b"23456");
    // TMPFILE has a name that is none, 7.37.
    let arguments = words(&[libc::O_RDWR.cast_unsigned(), 0o100_600, 0, 0]);
    let made = session.call(Opcode::Tmpfile, ROOT, &[&arguments, b"/\0"], 144);
    assert_eq!(made.error, 0);
    // SYNCFS, 7.34, and FALLOCATE on the ring.
    assert_eq!(session.call(Opcode::Syncfs, ROOT, &[&[0; 8]], 0).error, 0);
    let body = [
        &to.1.to_le_bytes()[..],
        &0_u64.to_le_bytes(),
        &4096_u64.to_le_bytes(),
        &[0; 8],
    ];
    assert_eq!(
        session
            .call(Opcode::Fallocate, to.0, &[&body.concat()], 0)
            .error,
        0
    );
    assert_eq!(
        fs::metadata(share.directory.join("to")).unwrap().len(),
        4096
    );
    let body = [&to.1.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(session.call(Opcode::Fsync, to.0, &[&body], 0).error, 0);
}

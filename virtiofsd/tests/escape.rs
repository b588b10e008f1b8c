//! A hostile guest, also together with somebody on the host who moves things about, gets nothing outside
//! of its directory: over the socket, however nodes are kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lab::frontend::fs::{Fs, FuseReply};
use lab::need;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use share::Share;
use share::session::{ENTRY, OPEN, ROOT, Session, number, transfer, words};
use virtiofsd::fuse::Opcode;

/// Open, by handle, by name, and by name with nothing open but the root.
const KEEPING: [&[&str]; 4] = [
    &["--inode-file-handles", "never"],
    &["--inode-file-handles", "prefer"],
    &["--inode-file-handles", "never", "--max-open", "8"],
    &["--inode-file-handles", "never", "--max-open", "0"],
];

const INSIDE: &[u8] = b"inside";
const SECRET: &str = "outside";

/// A directory that is shared, beside others that are not. Without a sandbox these are in reach of a
/// daemon that makes a mistake.
struct Prison {
    share: Share,
    /// Numbers of files that no guest may ever get.
    outside: Vec<u64>,
    before: BTreeMap<PathBuf, String>,
}

impl Prison {
    fn new(test: &str, options: &[&str], prepare: impl Fn(&Path)) -> Self {
        let share = Share::start_with(test, |daemon| {
            let open = ["--log-level", "error", "--sandbox", "none"];
            daemon.args(open).args(options)
        });
        let beside = share.scratch.dir("beside").unwrap();
        fs::write(beside.join("secret"), SECRET).unwrap();
        fs::write(share.scratch.join("secret"), SECRET).unwrap();
        prepare(&share.directory);
        let paths = ["", "beside", "beside/secret", "secret"].map(|name| share.scratch.join(name));
        Self {
            outside: paths.map(|path| fs::metadata(path).unwrap().ino()).to_vec(),
            before: Self::beside(&share),
            share,
        }
    }

    fn beside(share: &Share) -> BTreeMap<PathBuf, String> {
        let beside = share.scratch.join("beside");
        let paths = fs::read_dir(&beside)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let paths = paths.chain([share.scratch.join("secret"), share.scratch.join("beside")]);
        let state = |path: PathBuf| {
            let status = fs::symlink_metadata(&path).unwrap();
            let content = fs::read_to_string(&path).unwrap_or_default();
            let is = (status.ino(), status.mode(), status.uid(), status.nlink());
            (path, format!("{is:?} {content}"))
        };
        paths.map(state).collect()
    }

    /// A node, which must not be an outsider's.
    fn node(&self, entry: &FuseReply) -> Result<Node, i32> {
        if entry.error != 0 {
            return Err(-entry.error);
        }
        let inode = number(&entry.body, 40);
        assert!(
            !self.outside.contains(&inode),
            "the guest got inode {inode}"
        );
        let mode = u32::from_le_bytes(entry.body[40 + 60..40 + 64].try_into().unwrap());
        let id = number(&entry.body, 0);
        Ok(Node {
            id,
            kind: mode & libc::S_IFMT,
        })
    }

    fn look_up(&self, session: &mut Session<'_>, parent: u64, name: &str) -> Result<Node, i32> {
        let reply = session.call(Opcode::Lookup, parent, &[name.as_bytes(), b"\0"], ENTRY);
        self.node(&reply)
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(Self::beside(&self.share), self.before);
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    id: u64,
    kind: u32,
}

/// All requests with a name, as a guest would send them for `name` in `parent`.
fn requests_with(name: &[u8], parent: u64, other: u64) -> Vec<(Opcode, Vec<u8>)> {
    let ended = [name, b"\0"].concat();
    let with = |arguments: &[u8]| [arguments, &ended].concat();
    let open = words(&[
        (libc::O_RDWR | libc::O_TRUNC).cast_unsigned(),
        0o100_644,
        0,
        0,
    ]);
    let to = parent.to_le_bytes();
    vec![
        (Opcode::Lookup, ended.clone()),
        (Opcode::Create, with(&open)),
        (Opcode::Mkdir, with(&words(&[0o755, 0]))),
        (Opcode::Mknod, with(&words(&[0o100_644, 0, 0, 0]))),
        (Opcode::Symlink, [&ended[..], b"target\0"].concat()),
        (Opcode::Link, with(&other.to_le_bytes())),
        (Opcode::Unlink, ended.clone()),
        (Opcode::Rmdir, ended.clone()),
        (Opcode::Rename, [&to[..], &ended, b"moved\0"].concat()),
        (Opcode::Rename, [&to[..], b"file\0", &ended].concat()),
        (
            Opcode::Rename2,
            [&to[..], &[0; 8], &ended, b"moved\0"].concat(),
        ),
        (
            Opcode::Rename2,
            [&to[..], &[0; 8], b"file\0", &ended].concat(),
        ),
    ]
}

#[test]
fn names_that_lead_away_are_refused() {
    let long = "n".repeat(256);
    let names = [
        "",
        ".",
        "..",
        "/",
        "//",
        "../secret",
        "/secret",
        "dir/..",
        "dir/../../secret",
        "dir/file",
        "file/",
        "./file",
        &long,
    ];
    for options in KEEPING {
        let prison = Prison::new("fs-names", options, |dir| {
            fs::create_dir(dir.join("dir")).unwrap();
            fs::write(dir.join("dir/file"), INSIDE).unwrap();
            fs::write(dir.join("file"), INSIDE).unwrap();
        });
        let (_front_end, mut driver) = prison.share.mounted();
        let mut session = Session(&mut driver);
        let file = prison.look_up(&mut session, ROOT, "file").unwrap().id;
        let dir = prison.look_up(&mut session, ROOT, "dir").unwrap().id;
        for name in names {
            for parent in [ROOT, dir] {
                for (opcode, body) in requests_with(name.as_bytes(), parent, file) {
                    let error = session.call(opcode, parent, &[&body], ENTRY + OPEN).error;
                    let expected = if name.len() > 255 {
                        libc::ENAMETOOLONG
                    } else {
                        libc::EINVAL
                    };
                    assert_eq!(error, -expected, "{opcode:?} {name:?} with {options:?}");
                }
            }
        }
        // A name ends with its NUL: what is behind it counts for nothing.
        let hidden = session.call(Opcode::Lookup, ROOT, &[b"file\0/../../secret\0"], ENTRY);
        assert_eq!(prison.node(&hidden).unwrap().id, file);
        let unended = session.call(Opcode::Lookup, ROOT, &[b"file"], ENTRY);
        assert_eq!(unended.error, -libc::EINVAL);
        prison.assert_untouched();
        assert_eq!(fs::read_dir(&prison.share.directory).unwrap().count(), 2);
    }
}

/// Does `change` over and over while `work` runs.
fn meanwhile<T>(change: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                change();
            }
        });
        let _ends = Ends(&ended);
        work()
    })
}

/// Ends the changes, also when the work fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Directories that become links while they are looked up, and the other way round.
#[test]
fn links_that_take_a_directorys_place_are_not_followed() {
    for options in KEEPING {
        let prison = Prison::new("fs-swap", options, |dir| {
            fs::create_dir(dir.join("dir")).unwrap();
            fs::write(dir.join("dir/secret"), INSIDE).unwrap();
            symlink("../beside", dir.join("link")).unwrap();
        });
        let at = |name| prison.share.directory.join(name);
        let (dir, link) = (at("dir"), at("link"));
        let swap = || {
            renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        };
        let (_front_end, mut driver) = prison.share.mounted();
        let seen = meanwhile(swap, || {
            let rounds = (0..1500).map(|round| swapped(&prison, &mut driver, round));
            rounds.fold([0; 3], |seen, now| [0, 1, 2].map(|n| seen[n] + now[n]))
        });
        assert!(
            seen.iter().all(|count| *count > 0),
            "{seen:?} with {options:?}"
        );
        prison.assert_untouched();
    }
}

/// Whether `dir` was a directory, a link, and whether its file was read.
fn swapped(prison: &Prison, driver: &mut Fs, round: usize) -> [usize; 3] {
    let mut session = Session(driver);
    let found = prison.look_up(&mut session, ROOT, "dir").unwrap();
    if found.kind == libc::S_IFLNK {
        for opcode in [Opcode::Open, Opcode::Opendir] {
            let error = session.call(opcode, found.id, &[&[0; 8]], OPEN).error;
            assert!(
                [-libc::ELOOP, -libc::ENOTDIR, -libc::ESTALE].contains(&error),
                "{error}"
            );
        }
        let below = prison
            .look_up(&mut session, found.id, "secret")
            .unwrap_err();
        assert!([libc::ENOTDIR, libc::ESTALE].contains(&below), "{below}");
        session.forget(found.id, 1);
        return [0, 1, 0];
    }
    assert_eq!(found.kind, libc::S_IFDIR);
    // By name, a directory is looked for where it was last.
    let name = format!("new-{round}\0");
    let open = words(&[libc::O_RDWR.cast_unsigned(), 0o100_644, 0, 0]);
    let body: &[&[u8]] = &[&open, name.as_bytes()];
    let made = session.call(Opcode::Create, found.id, body, ENTRY + OPEN);
    if let Ok(node) = prison.node(&made) {
        let file = (node.id, number(&made.body, ENTRY));
        assert_eq!(session.release(Opcode::Release, file), 0);
        session.call(Opcode::Unlink, found.id, &[name.as_bytes()], 0);
        session.forget(node.id, 1);
    }
    let mut read = 0;
    if let Ok(secret) = prison.look_up(&mut session, found.id, "secret") {
        let opened = session.call(Opcode::Open, secret.id, &[&[0; 8]], OPEN);
        if opened.error == 0 {
            let file = (secret.id, number(&opened.body, 0));
            assert_eq!(session.read(file, 0, 100).body, INSIDE);
            assert_eq!(session.release(Opcode::Release, file), 0);
            read = 1;
        }
        session.forget(secret.id, 1);
    }
    session.forget(found.id, 1);
    [1, 0, read]
}

/// A directory is moved out of the share and back while the guest walks in it. The guest may go on in
/// what it knows, and gets nothing of where that is now.
#[test]
fn a_directory_that_is_moved_out_opens_no_way() {
    for options in KEEPING {
        let prison = Prison::new("fs-moved", options, |dir| {
            fs::create_dir_all(dir.join("a/b/c")).unwrap();
            fs::write(dir.join("a/b/c/file"), INSIDE).unwrap();
        });
        let (inside, outside) = (
            prison.share.directory.join("a/b"),
            prison.share.scratch.join("b"),
        );
        let move_about = || {
            fs::rename(&inside, &outside).unwrap();
            fs::rename(&outside, &inside).unwrap();
        };
        let (_front_end, mut driver) = prison.share.mounted();
        let mut session = Session(&mut driver);
        let reached = meanwhile(move_about, || {
            (0..1500)
                .filter(|_| walk_down(&prison, &mut session))
                .count()
        });
        assert!(reached > 0, "with {options:?}");
        // For good.
        fs::rename(&inside, &outside).unwrap();
        let a = prison.look_up(&mut session, ROOT, "a").unwrap();
        assert_eq!(
            prison.look_up(&mut session, a.id, "b").unwrap_err(),
            libc::ENOENT
        );
        prison.assert_untouched();
    }
}

/// Whether the file was reached.
fn walk_down(prison: &Prison, session: &mut Session<'_>) -> bool {
    let mut known = vec![ROOT];
    for name in ["a", "b", "c", "file"] {
        let parent = known[known.len() - 1];
        for away in ["secret", "beside", "shared"] {
            if let Ok(found) = prison.look_up(session, parent, away) {
                panic!("{away} below {name}: {found:?}");
            }
        }
        let up = prison.look_up(session, parent, "..").unwrap_err();
        assert_eq!(up, libc::EINVAL);
        match prison.look_up(session, parent, name) {
            Ok(node) => known.push(node.id),
            Err(error) => {
                assert!([libc::ENOENT, libc::ESTALE].contains(&error), "{error}");
                break;
            }
        }
    }
    for node in &known[1..] {
        session.forget(*node, 1);
    }
    known.len() == 5
}

/// Requests about nodes, with the numbers of files that they name in their arguments.
fn requests_about(handle: u64) -> Vec<(Opcode, Vec<u8>)> {
    let first = |len: usize| {
        let mut body = handle.to_le_bytes().to_vec();
        body.resize(len, 0);
        body
    };
    let mut by_handle = first(56);
    by_handle.splice(0..8, words(&[1, 0]));
    by_handle.splice(8..16, handle.to_le_bytes());
    vec![
        (Opcode::Read, transfer(handle, 0, 100)),
        (
            Opcode::Write,
            [transfer(handle, 0, 6), b"forged".to_vec()].concat(),
        ),
        (Opcode::Readdir, transfer(handle, 0, 1000)),
        (Opcode::Readdirplus, transfer(handle, 0, 1000)),
        (Opcode::Flush, first(24)),
        (Opcode::Fsync, first(16)),
        (Opcode::Fsyncdir, first(16)),
        (
            Opcode::Fallocate,
            [first(16), 4096_u64.to_le_bytes().to_vec(), vec![0; 8]].concat(),
        ),
        (Opcode::Lseek, first(24)),
        (Opcode::Release, first(24)),
        (Opcode::Releasedir, first(24)),
        (Opcode::Getattr, by_handle[..16].to_vec()),
        (
            Opcode::Statx,
            [by_handle[..16].to_vec(), words(&[0, 0x7ff])].concat(),
        ),
        (Opcode::CopyFileRange, [first(16), vec![0; 40]].concat()),
    ]
}

/// Requests that need no handle.
fn requests_without() -> Vec<(Opcode, Vec<u8>)> {
    vec![
        (Opcode::Getattr, vec![0; 16]),
        (Opcode::Setattr, vec![0; 88]),
        (Opcode::Readlink, vec![]),
        (Opcode::Open, vec![0; 8]),
        (Opcode::Opendir, vec![0; 8]),
        (Opcode::Statfs, vec![]),
        (Opcode::Access, vec![0; 8]),
        (Opcode::Syncfs, vec![0; 8]),
        (
            Opcode::Tmpfile,
            [words(&[2, 0o100_600, 0, 0]), b"/\0".to_vec()].concat(),
        ),
        (
            Opcode::Getxattr,
            [words(&[100, 0]), b"user.name\0".to_vec()].concat(),
        ),
        (
            Opcode::Setxattr,
            [words(&[1, 0]), b"user.name\0x".to_vec()].concat(),
        ),
        (Opcode::Listxattr, words(&[100, 0])),
        (Opcode::Removexattr, b"user.name\0".to_vec()),
    ]
}

#[test]
fn forged_numbers_lead_nowhere() {
    for options in KEEPING {
        let prison = Prison::new("fs-forged", options, |dir| {
            fs::write(dir.join("one"), INSIDE).unwrap();
            fs::write(dir.join("two"), INSIDE).unwrap();
        });
        let (_front_end, mut driver) = prison.share.mounted();
        let mut session = Session(&mut driver);
        let one = session.create("one");
        let two = session.create("two");
        let host = prison.outside[1];
        let known = [ROOT, one.0, two.0];
        let forged = [0, two.0 + 1, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 1, host]
            .into_iter()
            .filter(|node| !known.contains(node));
        for node in forged {
            let named = requests_with(b"name", node, one.0).into_iter();
            let all = named.chain(requests_about(one.1)).chain(requests_without());
            for (opcode, body) in all {
                let error = session.call(opcode, node, &[&body], 1000).error;
                assert!(
                    [-libc::ESTALE, -libc::EBADF].contains(&error),
                    "{opcode:?} {node}: {error}"
                );
            }
            // As a second node.
            let link = [&node.to_le_bytes()[..], b"link\0"].concat();
            assert_eq!(
                session.call(Opcode::Link, ROOT, &[&link], ENTRY).error,
                -libc::ESTALE
            );
            let to = [&node.to_le_bytes()[..], b"one\0one\0"].concat();
            assert_eq!(
                session.call(Opcode::Rename, ROOT, &[&to], 0).error,
                -libc::ESTALE
            );
        }
        // Another file's handle, and handles that there are none of.
        for handle in [two.1, two.1 + 1, 1 << 40, u64::MAX] {
            for (opcode, body) in requests_about(handle) {
                let error = session.call(opcode, one.0, &[&body], 1000).error;
                assert_eq!(error, -libc::EBADF, "{opcode:?} {handle}");
            }
        }
        assert_eq!(session.read(one, 0, 100).body, INSIDE);
        prison.assert_untouched();
        assert_eq!(fs::read_dir(&prison.share.directory).unwrap().count(), 2);
    }
}

/// With /proc in the share, its magic links are links and nothing more.
#[test]
fn magic_links_are_links() {
    need::root().unwrap();
    for options in KEEPING {
        let script = "mkdir proc && mount -t proc proc proc";
        let share = Share::start_in_namespace("fs-magic", script, |daemon| {
            daemon.args(["--sandbox", "none"]).args(options)
        });
        let (_front_end, mut driver) = share.mounted();
        let mut session = Session(&mut driver);
        let mut walk = |path: &str| {
            path.split('/').try_fold(ROOT, |parent, name| {
                let reply = session.call(Opcode::Lookup, parent, &[name.as_bytes(), b"\0"], ENTRY);
                let mode = (reply.error == 0).then(|| number(&reply.body, 40 + 56) >> 32);
                mode.map(|mode| (number(&reply.body, 0), mode as u32))
                    .map(|(node, mode)| {
                        let link = mode & libc::S_IFMT == libc::S_IFLNK;
                        if link { Err(node) } else { Ok(node) }
                    })
                    .unwrap_or_else(|| panic!("{path}: {name} is not there"))
            })
        };
        let links = [
            "proc/1/root",
            "proc/1/cwd",
            "proc/1/exe",
            "proc/self",
            "proc/thread-self",
        ];
        let nodes = links.map(|link| walk(link).expect_err("a link"));
        for (node, link) in nodes.into_iter().zip(links) {
            let below = session.call(Opcode::Lookup, node, &[b"etc\0"], ENTRY).error;
            assert_eq!(below, -libc::ENOTDIR, "{link}");
            let opened = session.call(Opcode::Open, node, &[&[0; 8]], OPEN).error;
            assert_eq!(opened, -libc::ELOOP, "{link}");
            let listed = session.call(Opcode::Opendir, node, &[&[0; 8]], OPEN).error;
            assert_eq!(listed, -libc::ENOTDIR, "{link}");
            let create = [&words(&[2, 0o100_644, 0, 0])[..], b"made\0"].concat();
            let made = session
                .call(Opcode::Create, node, &[&create], ENTRY + OPEN)
                .error;
            assert_eq!(made, -libc::ENOTDIR, "{link}");
        }
    }
}

/// A guest may make device nodes, for itself; the host's devices are not opened.
#[test]
fn device_nodes_are_not_the_hosts() {
    need::root().unwrap();
    for options in KEEPING {
        let prison = Prison::new("fs-device", options, |_| ());
        let (_front_end, mut driver) = prison.share.mounted();
        let mut session = Session(&mut driver);
        // /dev/zero, /dev/kmsg, the first disk.
        for (n, (kind, device)) in [
            (libc::S_IFCHR, 0x105),
            (libc::S_IFCHR, 0x10b),
            (libc::S_IFBLK, 0x800),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("device-{n}\0");
            let body = [&words(&[kind | 0o666, device, 0, 0])[..], name.as_bytes()].concat();
            let made = session.call(Opcode::Mknod, ROOT, &[&body], ENTRY);
            let node = prison.node(&made).unwrap();
            assert_eq!(node.kind, kind);
            for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC] {
                let body = words(&[flags.cast_unsigned(), 0]);
                let error = session.call(Opcode::Open, node.id, &[&body], OPEN).error;
                assert_eq!(error, -libc::ENXIO);
            }
            let open = words(&[libc::O_RDWR.cast_unsigned(), 0o100_644, 0, 0]);
            let body: &[&[u8]] = &[&open, name.as_bytes()];
            let error = session.call(Opcode::Create, ROOT, body, ENTRY + OPEN).error;
            assert_eq!(error, -libc::ENXIO);
        }
    }
}

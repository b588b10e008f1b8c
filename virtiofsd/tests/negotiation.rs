//! What guests' kernels and the daemon agree on, and what comes of the newest of it.
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

use lab::frontend::fs::Caller;
use lab::need;
use share::Share;
use share::session::{ENTRY, OPEN, Session, words};
use virtiofsd::fuse::{Features, Opcode};

/// What is agreed on whatever the options, with a kernel that offers everything.
const ALWAYS: &[Features] = &[
    Features::ASYNC_READ,
    Features::ATOMIC_O_TRUNC,
    Features::BIG_WRITES,
    Features::DONT_MASK,
    Features::ASYNC_DIO,
    Features::PARALLEL_DIROPS,
    Features::MAX_PAGES,
    Features::CACHE_SYMLINKS,
    Features::SETXATTR_EXT,
    Features::INIT_EXT,
    Features::CREATE_SUPP_GROUP,
];

/// What is agreed on unless options say otherwise.
const DEFAULT: &[Features] = &[
    Features::AUTO_INVAL_DATA,
    Features::DO_READDIRPLUS,
    Features::READDIRPLUS_AUTO,
    Features::HANDLE_KILLPRIV_V2,
];

fn all(features: &[Features]) -> Features {
    let none = Features::NONE;
    features.iter().fold(none, |all, feature| all | *feature)
}

fn agreed(options: &[&str], offered: Features) -> Features {
    let share = Share::start_with("fs-agreed", |daemon| daemon.args(options));
    let (_front_end, mut fs) = share.driver();
    Features::from_bits(fs.init(40, offered.bits()).unwrap().flags)
}

#[test]
fn options_say_what_is_agreed_on() {
    let everything = Features::from_bits(u64::MAX);
    let default = all(ALWAYS) | all(DEFAULT);
    let changes: &[(&[&str], &[Features], &[Features])] = &[
        (&[], &[], &[]),
        (&["--writeback"], &[Features::WRITEBACK_CACHE], &[]),
        (&["--posix-acl"], &[Features::POSIX_ACL], &[]),
        (&["--security-label"], &[Features::SECURITY_CTX], &[]),
        (&["--announce-submounts"], &[Features::SUBMOUNTS], &[]),
        (&["--posix-lock"], &[Features::POSIX_LOCKS], &[]),
        (&["--flock"], &[Features::FLOCK_LOCKS], &[]),
        (&["--cache=always"], &[], &[Features::AUTO_INVAL_DATA]),
        (
            &["--cache=never", "--allow-mmap"],
            &[Features::DIRECT_IO_ALLOW_MMAP],
            &[Features::AUTO_INVAL_DATA],
        ),
        (&["--no-killpriv-v2"], &[], &[Features::HANDLE_KILLPRIV_V2]),
        (&["--no-killpriv-v2", "--killpriv-v2"], &[], &[]),
        (
            &["-o", "no_readdirplus"],
            &[],
            &[Features::DO_READDIRPLUS, Features::READDIRPLUS_AUTO],
        ),
    ];
    for (options, more, less) in changes {
        let expected = (default | all(more)).bits() & !all(less).bits();
        let bits = agreed(options, everything).bits();
        assert_eq!(bits, expected, "{options:?}: {bits:#x}, {expected:#x}");
    }
}

#[test]
fn nothing_is_agreed_on_that_the_kernel_does_not_offer() {
    let options = ["--writeback", "--posix-acl", "--posix-lock", "--flock"];
    assert_eq!(agreed(&options, Features::NONE), Features::NONE);
    let one = Features::ASYNC_DIO;
    assert_eq!(agreed(&options, one), one);
}

/// In a directory of group 9999 with its set-group-ID bit, only a member may make a file with the bit.
/// Linux 6.3 and later say so behind the arguments (`FUSE_EXT_GROUPS`).
#[test]
fn a_creators_groups_come_behind_the_arguments() {
    need::root().unwrap();
    let share = Share::start("fs-groups");
    let directory = share.directory.join("dir");
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(0), Some(9999)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2777)).unwrap();
    let (_front_end, mut fs_driver) = share.driver();
    let offered = Features::INIT_EXT | Features::CREATE_SUPP_GROUP | Features::DONT_MASK;
    fs_driver.init(40, offered.bits()).unwrap();
    let node = Session(&mut fs_driver).lookup("dir").unwrap();
    for (name, group, mode) in [("member", 9999, 0o2775), ("stranger", 9998, 0o775)] {
        // Size and kind of the record, how many groups, the group.
        let groups = words(&[16, 32, 1, group]);
        let create = words(&[libc::O_RDWR.cast_unsigned(), 0o102_775, 0, 0]);
        let caller = Caller {
            uid: 4321,
            gid: 8765,
            total_extlen: 2,
            ..Caller::root(node)
        };
        let name_bytes = format!("{name}\0");
        let body: &[&[u8]] = &[&create, name_bytes.as_bytes(), &groups];
        let opcode = Opcode::Create as u32;
        let made = fs_driver
            .request(opcode, caller, body, ENTRY + OPEN)
            .unwrap();
        assert_eq!(made.error, 0);
        let status = fs::metadata(directory.join(name)).unwrap();
        let is = (status.uid(), status.gid(), status.mode() & 0o7777);
        assert_eq!(is, (4321, 9999, mode), "{name}");
    }
}

/// `SETXATTR_EXT` says when an ACL takes the set-group-ID bit away.
#[test]
fn an_acl_clears_the_set_group_id_bit_when_it_is_told_to() {
    need::root().unwrap();
    let share = Share::start_with("fs-kill-sgid", |daemon| daemon.arg("--posix-acl"));
    let path = share.directory.join("file");
    fs::write(&path, "").unwrap();
    let (_front_end, mut fs_driver) = share.driver();
    let offered = Features::SETXATTR_EXT | Features::POSIX_ACL | Features::DONT_MASK;
    fs_driver.init(40, offered.bits()).unwrap();
    let mut session = Session(&mut fs_driver);
    let node = session.lookup("file").unwrap();
    // Version 2; user, group and others, as tag, permissions and id.
    let entry = |tag: u16, may: u16| words(&[u32::from(tag) | u32::from(may) << 16, u32::MAX]);
    let acl = [words(&[2]), entry(1, 7), entry(4, 7), entry(32, 5)].concat();
    for (kill, mode) in [(0, 0o2775), (1, 0o775)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2775)).unwrap();
        let arguments = words(&[acl.len() as u32, 0, kill, 0]);
        let name = b"system.posix_acl_access\0";
        let set = session.call(Opcode::Setxattr, node, &[&arguments, name, &acl], 0);
        assert_eq!(set.error, 0);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
    }
}

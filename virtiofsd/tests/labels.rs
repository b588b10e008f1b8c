//! New files have the security labels that a guest's kernel sends with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs;

use lab::frontend::fs::{Caller, Fs};
use lab::need;
use share::Share;
use share::session::{ENTRY, OPEN, ROOT, Session, words};
use virtiofsd::fuse::Opcode;

const INIT_EXT: u64 = 1 << 30;
const SECURITY_CTX: u64 = 1 << 32;

/// An attribute of the security namespace that no module of this host interprets.
const NAME: &str = "security.ringside";

/// `struct fuse_secctx_header`, one `struct fuse_secctx`, name and value.
fn label(name: &str, value: &str) -> Vec<u8> {
    let mut context = words(&[value.len() as u32, 0]);
    context.extend([name.as_bytes(), b"\0", value.as_bytes()].concat());
    context.resize(context.len().next_multiple_of(8), 0);
    [words(&[8 + context.len() as u32, 1]), context].concat()
}

fn mounted(share: &Share, minor: u32) -> (lab::frontend::FrontEnd, Fs) {
    let (front_end, mut fs) = share.driver();
    let wanted = INIT_EXT | SECURITY_CTX;
    assert_eq!(fs.init(minor, wanted).unwrap().flags & wanted, wanted);
    (front_end, fs)
}

/// Every request that makes something, with `label` as a kernel of that minor version sends it.
fn make_all(fs: &mut Fs, minor: u32, label: &[u8]) -> Vec<(&'static str, i32)> {
    let open = words(&[libc::O_RDWR.cast_unsigned(), 0o100_644, 0, 0]);
    let requests: [(Opcode, &[&[u8]], &str, usize); 5] = [
        (Opcode::Create, &[&open, b"file\0"], "file", ENTRY + OPEN),
        (
            Opcode::Mkdir,
            &[&words(&[0o755, 0]), b"dir\0"],
            "dir",
            ENTRY,
        ),
        (
            Opcode::Mknod,
            &[&words(&[0o100_600, 0, 0, 0]), b"node\0"],
            "node",
            ENTRY,
        ),
        (Opcode::Symlink, &[b"link\0", b"target\0"], "link", ENTRY),
        (Opcode::Tmpfile, &[&open, b"/\0"], "", ENTRY + OPEN),
    ];
    let units = if minor < 38 { 0 } else { label.len() / 8 };
    let caller = Caller {
        total_extlen: units as u16,
        ..Caller::root(ROOT)
    };
    let mut made = Vec::new();
    for (opcode, body, name, room) in requests {
        let body = [body, &[label]].concat();
        let reply = fs.request(opcode as u32, caller, &body, room).unwrap();
        made.push((name, reply.error));
    }
    made
}

#[test]
fn new_files_are_labelled() {
    need::root().unwrap();
    for minor in [37, 38] {
        let share = Share::start_with("fs-label", |daemon| {
            // What the host wants for them where it has no policy of its own.
            daemon.args(["--security-label", "--modcaps=+sys_admin"])
        });
        let (_front_end, mut fs) = mounted(&share, minor);
        for (name, error) in make_all(&mut fs, minor, &label(NAME, "secret")) {
            assert_eq!(error, 0, "{name}");
            if name.is_empty() {
                continue;
            }
            let mut value = [0; 32];
            let path = share.directory.join(name);
            let len = rustix::fs::lgetxattr(&path, NAME, &mut value[..]).unwrap();
            assert_eq!(&value[..len], b"secret", "{name}, FUSE 7.{minor}");
        }
    }
}

/// No file stays that would have to do without its label; nor is anything but a label taken for one.
#[test]
fn what_cannot_be_labelled_is_not_made() {
    need::root().unwrap();
    for (label, expected) in [
        (label("security.capability", "not one"), libc::EINVAL),
        (label("user.name", "value"), libc::EINVAL),
        (label("trusted.overlay.opaque", "y"), libc::EINVAL),
    ] {
        let share = Share::start_with("fs-label-bad", |daemon| daemon.arg("--security-label"));
        let (_front_end, mut fs) = mounted(&share, 38);
        for (name, error) in make_all(&mut fs, 38, &label) {
            assert_eq!(error, -expected, "{name}");
        }
        assert_eq!(fs::read_dir(&share.directory).unwrap().count(), 0);
    }
}

/// Without the option it is the host's business what labels files have.
#[test]
fn labels_that_nobody_asked_for_are_ignored() {
    let share = Share::start("fs-label-none");
    let (_front_end, mut fs) = share.driver();
    assert_eq!(
        fs.init(38, INIT_EXT | SECURITY_CTX).unwrap().flags & SECURITY_CTX,
        0
    );
    for (name, error) in make_all(&mut fs, 38, &label(NAME, "secret")) {
        assert_eq!(error, 0, "{name}");
    }
    let path = share.directory.join("file");
    assert!(rustix::fs::lgetxattr(&path, NAME, &mut [0_u8; 32][..]).is_err());
    assert_eq!(Session(&mut fs).lookup("node").map(drop), Ok(()));
}

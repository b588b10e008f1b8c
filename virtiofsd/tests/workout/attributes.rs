//! Extended attributes: namespaces, sizes, lists, who may.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};

use super::Transcript;
use super::owners::{USER, user};

pub fn run(t: &mut Transcript) {
    let at = t.at("attributes");
    fs::create_dir(&at).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o777)).unwrap();
    namespaces(t, &at);
    sizes(t, &at.join("sizes"));
    many(t, &at.join("many"));
    by_whom(t, &at);
    capabilities(t, &at.join("capable"));
    lists_and_flags(t, &at.join("listed"));
}

/// What guests have where it is asked for, and what they never have.
fn lists_and_flags(t: &mut Transcript, path: &Path) {
    fs::write(path, "").unwrap();
    // Version 2; user::rw-, user:4321:r--, group::r--, mask::r--, other::--- (linux/posix_acl_xattr.h).
    let entries: [(u16, u16, u32); 5] = [
        (1, 6, !0),
        (2, 4, USER),
        (4, 4, !0),
        (16, 4, !0),
        (32, 0, !0),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    const NAME: &str = "system.posix_acl_access";
    t.tried("ACL: set", set(path, NAME, &list));
    t.note("ACL: get", get(path, NAME) == Ok(list));
    t.note("ACL: listed", names(path));
    t.note("ACL: mode", fs::metadata(path).map(|s| s.mode()).ok());
    t.tried("ACL: remove", lremovexattr(path, NAME));
    let file = File::open(path).unwrap();
    t.tried("flags: get", rustix::fs::ioctl_getflags(&file));
    let flags = rustix::fs::IFlags::NODUMP;
    t.tried("flags: set", rustix::fs::ioctl_setflags(&file, flags));
}

fn set(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    lsetxattr(path, name, value, XattrFlags::empty())
}

fn get(path: &Path, name: &str) -> Result<Vec<u8>, i32> {
    let mut value = vec![0; 65536];
    let len = lgetxattr(path, name, &mut value[..]).map_err(|errno| errno.raw_os_error())?;
    value.truncate(len);
    Ok(value)
}

/// The names, without those that a host gives to all its files.
fn names(path: &Path) -> Result<Vec<String>, i32> {
    let mut list = vec![0; 65536];
    let len = llistxattr(path, &mut list[..]).map_err(|errno| errno.raw_os_error())?;
    let names = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut names: Vec<String> = names
        .map(|name| String::from_utf8_lossy(name).into())
        .collect();
    names.retain(|name| name != "security.selinux");
    names.sort();
    Ok(names)
}

fn namespaces(t: &mut Transcript, at: &Path) {
    let (file, dir, link) = (at.join("file"), at.join("dir"), at.join("link"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&dir).unwrap();
    symlink("file", &link).unwrap();
    let fifo = at.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o666.into(),
        0,
    )
    .unwrap();
    for path in [&file, &dir, &link, &fifo] {
        for name in [
            "user.a",
            "trusted.a",
            "security.a",
            "user.",
            "user",
            "",
            "other.a",
            "system.a",
        ] {
            t.tried(&format!("set {name:?}"), set(path, name, b"v"));
            t.note(&format!("get {name:?}"), get(path, name));
        }
        t.note("names", names(path));
        t.tried("remove", lremovexattr(path, "trusted.a"));
        t.note("names", names(path));
    }
    t.tried(
        "set through the link",
        rustix::fs::setxattr(&link, "user.b", b"w", XattrFlags::CREATE),
    );
    t.note("of the file", get(&file, "user.b"));
    t.tried("of nothing", set(&at.join("none"), "user.a", b""));
    let open = File::open(&file).unwrap();
    fs::remove_file(&file).unwrap();
    t.tried(
        "of what was removed",
        rustix::fs::fsetxattr(&open, "user.c", b"x", XattrFlags::CREATE),
    );
    t.note(
        "is there",
        rustix::fs::fgetxattr(&open, "user.c", &mut [0_u8; 9][..]).ok(),
    );
}

fn sizes(t: &mut Transcript, path: &Path) {
    fs::write(path, "").unwrap();
    for len in [0, 1, 255, 2000, 3900, 65536, 65537] {
        let value = vec![7; len];
        t.tried(
            &format!("a value of {len} bytes"),
            set(path, "user.sized", &value),
        );
        t.note("has", get(path, "user.sized").map(|value| value.len()));
    }
    for len in [255, 256] {
        let name = format!("user.{}", "n".repeat(len - 5));
        t.tried(&format!("a name of {len} bytes"), set(path, &name, b"v"));
        t.note("has", get(path, &name));
    }
    t.note("the list's length", rustix::fs::llistxattr_query(path).ok());
    t.tried(
        "too little room for the list",
        llistxattr(path, &mut [0_u8; 10][..]),
    );
    t.tried(
        "create and replace",
        lsetxattr(
            path,
            "user.both",
            b"",
            XattrFlags::CREATE | XattrFlags::REPLACE,
        ),
    );
    t.tried(
        "an unknown flag",
        lsetxattr(path, "user.flag", b"", XattrFlags::from_bits_retain(8)),
    );
    set(path, "user.replaced", b"long value").unwrap();
    t.tried(
        "replace",
        lsetxattr(path, "user.replaced", b"short", XattrFlags::REPLACE),
    );
    t.note("is", get(path, "user.replaced"));
}

fn many(t: &mut Transcript, path: &Path) {
    fs::create_dir(path).unwrap();
    for n in 0..40 {
        set(
            path,
            &format!("user.attribute-{n:03}"),
            format!("{n}").as_bytes(),
        )
        .unwrap();
    }
    t.note(
        "many",
        names(path).map(|names| (names.len(), names.first().cloned(), names.last().cloned())),
    );
    for n in (0..40).step_by(2) {
        lremovexattr(path, format!("user.attribute-{n:03}")).unwrap();
    }
    t.note(
        "half of them",
        names(path).map(|names| (names.len(), names.first().cloned())),
    );
    t.note("one", get(path, "user.attribute-033"));
    t.note("one that is gone", get(path, "user.attribute-032"));
}

fn by_whom(t: &mut Transcript, at: &Path) {
    let (file, sticky) = (at.join("roots"), at.join("sticky"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&sticky).unwrap();
    fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
    for mode in [0o600, 0o644, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        for name in ["user.u", "trusted.u", "security.u"] {
            t.tried(
                &format!("a stranger sets {name}"),
                user(|| set(&file, name, b"x")),
            );
            set(&file, name, b"root's").unwrap();
            t.note(
                &format!("a stranger gets {name}"),
                user(|| get(&file, name)),
            );
            t.tried(
                &format!("a stranger removes {name}"),
                user(|| lremovexattr(&file, name)),
            );
        }
        t.note("a stranger lists", user(|| names(&file)));
    }
    t.tried(
        "a stranger's, of a sticky directory",
        user(|| set(&sticky, "user.s", b"")),
    );
    chown(&file, Some(USER), None).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    t.tried(
        "the owner's, of what is read-only",
        user(|| set(&file, "user.o", b"")),
    );
    t.note("the owner gets", user(|| get(&file, "user.u")));
}

/// What the kernel keeps a program's capabilities in goes when the program changes.
fn capabilities(t: &mut Transcript, path: &Path) {
    // Version 2, CAP_NET_RAW permitted (linux/capability.h).
    let mut value = [0; 20];
    value[3] = 2;
    value[5] = 0x20;
    const NAME: &str = "security.capability";
    let fresh = || {
        fs::write(path, "program").unwrap();
        set(path, NAME, &value).map_err(|errno| errno.raw_os_error())
    };
    t.note("give a capability", fresh());
    t.note("it has it", get(path, NAME).map(|value| value.len()));
    t.note("listed", names(path));
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"x", 0)
        .unwrap();
    t.note("after a write", get(path, NAME).map(|value| value.len()));
    t.note("again", fresh());
    chown(path, Some(USER), None).unwrap();
    t.note(
        "after a change of owner",
        get(path, NAME).map(|value| value.len()),
    );
    t.note("again", fresh());
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(1)
        .unwrap();
    t.note(
        "after a truncation",
        get(path, NAME).map(|value| value.len()),
    );
    t.note("again", fresh());
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
    t.note("after chmod", get(path, NAME).map(|value| value.len()));
    t.note(
        "owner and mode",
        fs::metadata(path).map(|s| (s.uid(), s.mode())).ok(),
    );
}

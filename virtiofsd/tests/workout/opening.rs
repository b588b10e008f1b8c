//! Opening and finding: flags of open(2), links that lead on, paths that are too long, files without
//! a name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mknodat, open, openat};

use super::Transcript;

pub fn run(t: &mut Transcript) {
    let at = t.at("opening");
    fs::create_dir(&at).unwrap();
    flags(t, &at);
    modes(t, &at);
    link_chains(t, &at);
    long_paths(t, &at);
    unnamed(t, &at);
    paths_only(t, &at);
}

fn flags(t: &mut Transcript, at: &Path) {
    fs::write(at.join("file"), "content").unwrap();
    fs::create_dir(at.join("dir")).unwrap();
    symlink("file", at.join("link")).unwrap();
    symlink("new", at.join("dangling")).unwrap();
    symlink("dir", at.join("dirlink")).unwrap();
    mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    mknodat(CWD, at.join("socket"), FileType::Socket, Mode::RWXU, 0).unwrap();
    let (read, write, create) = (OFlags::RDONLY, OFlags::WRONLY, OFlags::CREATE);
    let tries = [
        ("file", write | create | OFlags::EXCL),
        ("link", write | create | OFlags::EXCL),
        ("dangling", write | create | OFlags::EXCL),
        ("dangling", write | create | OFlags::NOFOLLOW),
        ("dangling", read),
        ("dangling", write | create),
        ("new", read),
        ("link", read | OFlags::NOFOLLOW),
        ("dirlink", read | OFlags::NOFOLLOW | OFlags::DIRECTORY),
        ("dirlink", read | OFlags::DIRECTORY),
        ("file", read | OFlags::DIRECTORY),
        ("file/", read),
        ("file/.", read),
        ("none/", write | create),
        ("dir", write),
        ("dir", OFlags::RDWR),
        ("dir", read | create),
        ("dir", read | OFlags::TRUNC),
        ("dir/", write | create),
        ("dir/../file", read),
        ("none/../file", read),
        ("file/../file", read),
        ("", read),
        ("fifo", write | OFlags::NONBLOCK),
        ("fifo", read | OFlags::NONBLOCK),
        ("socket", read),
        ("file", read | OFlags::TRUNC),
        ("file", write | OFlags::SYNC | OFlags::DSYNC),
        ("file", read | OFlags::NOATIME),
        ("file", OFlags::RDWR | OFlags::APPEND | OFlags::TRUNC),
    ];
    for (name, flags) in tries {
        let opened = open(at.join(name), flags, Mode::from_raw_mode(0o600));
        t.tried(&format!("open {name} {:o}", flags.bits()), opened);
    }
    t.note("truncated", fs::metadata(at.join("file")).unwrap().len());
}

/// What open, mkdir and mknod make of a mode.
fn modes(t: &mut Transcript, at: &Path) {
    let before = rustix::process::umask(Mode::from_raw_mode(0o027));
    for mode in [0o7777, 0o4711, 0o2070, 0o1666, 0o000] {
        let raw = Mode::from_raw_mode(mode);
        let path = |kind: &str| at.join(format!("{kind}-{mode:o}"));
        let opened = open(path("open"), OFlags::CREATE | OFlags::WRONLY, raw);
        t.tried(
            "create with a mode",
            opened.as_ref().map_err(|errno| *errno),
        );
        // Open to write, whatever the mode.
        t.tried("write", opened.and_then(|fd| rustix::io::write(fd, b"x")));
        t.tried("mkdir with a mode", rustix::fs::mkdir(path("mkdir"), raw));
        t.tried(
            "mknod with a mode",
            mknodat(CWD, path("mknod"), FileType::RegularFile, raw, 0),
        );
        t.tried(
            "mkfifo with a mode",
            mknodat(CWD, path("fifo"), FileType::Fifo, raw, 0),
        );
        let modes = ["open", "mkdir", "mknod", "fifo"].map(|kind| {
            fs::metadata(path(kind))
                .map(|s| format!("{:o}", s.mode()))
                .ok()
        });
        t.note("modes", modes);
    }
    rustix::process::umask(before);
    let device = rustix::fs::makedev(7, 300);
    t.tried(
        "a block device",
        mknodat(
            CWD,
            at.join("block"),
            FileType::BlockDevice,
            Mode::RWXU,
            device,
        ),
    );
    t.note(
        "its number",
        fs::metadata(at.join("block"))
            .map(|s| (s.mode(), s.rdev()))
            .ok(),
    );
    t.tried(
        "mknod again",
        mknodat(CWD, at.join("block"), FileType::Fifo, Mode::RWXU, 0),
    );
    let as_user = |kind, name: &str| {
        let path = at.join(name);
        super::owners::user(|| mknodat(CWD, &path, kind, Mode::RWXU, device))
    };
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
    t.tried(
        "a user's device",
        as_user(FileType::CharacterDevice, "users-device"),
    );
    t.tried("a user's fifo", as_user(FileType::Fifo, "users-fifo"));
}

fn link_chains(t: &mut Transcript, at: &Path) {
    let chain = at.join("chain");
    fs::create_dir(&chain).unwrap();
    fs::write(chain.join("0"), "end").unwrap();
    for n in 1..=42 {
        symlink(format!("{}", n - 1), chain.join(n.to_string())).unwrap();
    }
    for n in [1, 39, 40, 41] {
        t.tried(
            &format!("through {n} links"),
            fs::read(chain.join(n.to_string())),
        );
    }
    symlink("two", at.join("one")).unwrap();
    symlink("one", at.join("two")).unwrap();
    t.tried("round and round", File::open(at.join("one")));
    t.tried("as a directory", fs::metadata(at.join("one/x")));
    t.note(
        "the link itself",
        fs::symlink_metadata(at.join("one")).map(|s| s.len()).ok(),
    );
    symlink(".", at.join("here")).unwrap();
    t.tried("through here", fs::metadata(at.join("here/".repeat(30))));
    t.tried(
        "too often through here",
        fs::metadata(at.join("here/".repeat(41))),
    );
    t.tried("a target of no bytes", symlink("", at.join("empty")));
    t.tried(
        "a target of 4096 bytes",
        symlink("t".repeat(4096), at.join("long")),
    );
    let odd = OsStr::from_bytes(b"\xffodd\x01 //../");
    t.tried("an odd target", symlink(odd, at.join("odd")));
    t.note("is", fs::read_link(at.join("odd")).ok());
    t.tried("read a link that is none", fs::read_link(at.join("dir")));
}

fn long_paths(t: &mut Transcript, at: &Path) {
    let length = |len: usize| {
        let mut path = at.as_os_str().to_owned();
        while path.len() + 2 <= len {
            path.push("/.");
        }
        path.push("/".repeat(len - path.len()));
        path
    };
    t.tried("a path of 4095 bytes", fs::metadata(length(4095)));
    t.tried("a path of 4096 bytes", fs::metadata(length(4096)));
    let mut below: OwnedFd = open(at, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let name = "d".repeat(255);
    for _ in 0..20 {
        rustix::fs::mkdirat(&below, name.as_str(), Mode::RWXU).unwrap();
        below = openat(&below, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    // Deeper than any path can tell.
    let deep = openat(&below, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU);
    t.tried(
        "a file below",
        deep.map(File::from)
            .map_err(Into::into)
            .and_then(|mut file| file.write_all(b"x")),
    );
    t.note(
        "is there",
        rustix::fs::statat(&below, "file", AtFlags::empty())
            .map(|s| s.st_size)
            .ok(),
    );
    t.tried(
        "up again",
        openat(&below, "../../..", OFlags::DIRECTORY, Mode::empty()),
    );
    t.tried("remove all that", fs::remove_dir_all(at.join(&name)));
    for len in [255, 256] {
        let name = at.join("x".repeat(len));
        t.tried("mkdir", fs::create_dir(&name));
        t.tried(
            "symlink",
            symlink("x", name.join("../").join("y".repeat(len))),
        );
        t.tried(
            "link",
            fs::hard_link(at.join("file"), at.join("z".repeat(len))),
        );
        t.tried("rmdir", fs::remove_dir(&name));
        t.tried("look up", fs::metadata(at.join("w".repeat(len))));
        t.tried("unlink", fs::remove_file(at.join("z".repeat(len))));
    }
}

fn unnamed(t: &mut Transcript, at: &Path) {
    let make = |flags| open(at, OFlags::TMPFILE | flags, Mode::from_raw_mode(0o604));
    t.tried("a file without a name, to read", make(OFlags::RDONLY));
    t.tried(
        "of a file",
        open(at.join("file"), OFlags::TMPFILE | OFlags::RDWR, Mode::RWXU),
    );
    let name = |fd: &OwnedFd, name: &str| linkat(fd, "", CWD, at.join(name), AtFlags::EMPTY_PATH);
    let Ok(fd) = make(OFlags::RDWR) else {
        return t.note("a file without a name", false);
    };
    t.note(
        "its mode",
        rustix::fs::fstat(&fd)
            .map(|s| (s.st_mode, s.st_nlink, s.st_size))
            .ok(),
    );
    t.tried("write", rustix::io::write(&fd, b"text"));
    t.tried("name it, where there is one", name(&fd, "file"));
    t.tried("name it", name(&fd, "was-unnamed"));
    t.tried("name it once more", name(&fd, "was-unnamed-2"));
    t.note("its links", rustix::fs::fstat(&fd).map(|s| s.st_nlink).ok());
    t.note("content", fs::read(at.join("was-unnamed-2")).ok());
    if let Ok(never) = make(OFlags::RDWR | OFlags::EXCL) {
        t.tried("name what must not have one", name(&never, "never"));
    }
    let gone = File::create(at.join("gone")).unwrap();
    fs::remove_file(at.join("gone")).unwrap();
    t.tried(
        "name what was removed",
        linkat(gone.as_fd(), "", CWD, at.join("back"), AtFlags::EMPTY_PATH),
    );
    t.tried(
        "link a directory",
        fs::hard_link(at.join("dir"), at.join("dir2")),
    );
    let follow = |flags| linkat(CWD, at.join("link"), CWD, at.join("linked"), flags);
    t.tried("link what a link names", follow(AtFlags::SYMLINK_FOLLOW));
    t.note(
        "is a link",
        fs::symlink_metadata(at.join("linked"))
            .map(|s| s.is_symlink())
            .ok(),
    );
}

fn paths_only(t: &mut Transcript, at: &Path) {
    let path = |name: &str, flags| open(at.join(name), OFlags::PATH | flags, Mode::empty());
    for name in ["file", "dir", "link", "fifo", "socket", "none"] {
        let opened = path(name, OFlags::NOFOLLOW);
        let kind = opened
            .as_ref()
            .map(|fd| rustix::fs::fstat(fd).map(|s| s.st_mode & libc::S_IFMT));
        t.note("the path alone", kind.map_err(|errno| errno.raw_os_error()));
    }
    let fd = path("was-unnamed", OFlags::empty()).unwrap();
    t.tried(
        "read by it",
        File::from(fd.try_clone().unwrap()).read(&mut [0]),
    );
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    t.note("open it again", fs::read(&again).ok());
    fs::remove_file(at.join("was-unnamed")).unwrap();
    fs::remove_file(at.join("was-unnamed-2")).unwrap();
    t.note("after it was removed", fs::read(again).ok());
    t.note("its links", rustix::fs::fstat(&fd).map(|s| s.st_nlink).ok());
}

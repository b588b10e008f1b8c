//! What is not just a named sequence of bytes: attributes, unnamed files, device nodes, mappings.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};

use super::Transcript;

pub fn run(t: &mut Transcript) {
    attributes(t);
    extended(t);
    unnamed(t);
    nodes(t);
    programs(t);
}

fn attributes(t: &mut Transcript) {
    let path = t.at("plain");
    fs::write(&path, "plain").unwrap();
    for mode in [0o600, 0o4755, 0o2711, 0o1777, 0o000, 0o644] {
        t.tried(
            "chmod",
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)),
        );
        t.note("mode", format!("{:o}", fs::metadata(&path).unwrap().mode()));
    }
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let times = fs::FileTimes::new()
        .set_accessed(then)
        .set_modified(then + Duration::from_nanos(1));
    let file = File::options().write(true).open(&path).unwrap();
    t.tried("set times", file.set_times(times));
    let status = fs::metadata(&path).unwrap();
    t.note(
        "times",
        (
            status.atime(),
            status.atime_nsec(),
            status.mtime(),
            status.mtime_nsec(),
        ),
    );
    drop(file);
    fs::write(&path, "changed").unwrap();
    t.note(
        "modified now",
        fs::metadata(&path).unwrap().mtime() > 1_600_000_000,
    );
    let old = SystemTime::UNIX_EPOCH - Duration::from_secs(1000);
    let link = t.at("dated-link");
    std::os::unix::fs::symlink("plain", &link).unwrap();
    let before = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 1,
            tv_nsec: 2,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: 3,
            tv_nsec: 4,
        },
    };
    t.tried(
        "times of a link",
        rustix::fs::utimensat(CWD, &link, &before, AtFlags::SYMLINK_NOFOLLOW),
    );
    let status = fs::symlink_metadata(&link).unwrap();
    t.note("they are", (status.mtime(), status.mtime_nsec()));
    let file = File::options().write(true).open(&path).unwrap();
    t.tried("before 1970", file.set_modified(old));
    t.note("it was", fs::metadata(&path).unwrap().mtime());
    let space = rustix::fs::statvfs(t.at("")).unwrap();
    t.note(
        "file system",
        (space.f_namemax, space.f_blocks > 0, space.f_bsize),
    );
}

fn extended(t: &mut Transcript) {
    let (file, dir, link) = (t.at("x-file"), t.at("x-dir"), t.at("x-link"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let mut value = [0; 64];
    for path in [&file, &dir, &link] {
        for name in ["trusted.one", "user.two"] {
            let set = rustix::fs::lsetxattr(path, name, b"value", XattrFlags::CREATE);
            t.tried("set xattr", set);
            let again = rustix::fs::lsetxattr(path, name, b"value", XattrFlags::CREATE);
            t.tried("create it again", again);
            t.note(
                "get",
                rustix::fs::lgetxattr(path, name, &mut value[..])
                    .ok()
                    .map(|n| value[..n].to_vec()),
            );
            t.note(
                "ask for the size",
                rustix::fs::lgetxattr(path, name, &mut value[..0]).ok(),
            );
            t.tried(
                "too little room",
                rustix::fs::lgetxattr(path, name, &mut value[..2]),
            );
        }
        let mut names = [0; 512];
        let listed = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
        let mut names: Vec<_> = names[..listed]
            .split(|b| *b == 0)
            .map(String::from_utf8_lossy)
            .collect();
        names.retain(|name| name.starts_with("user.") || name.starts_with("trusted."));
        names.sort();
        t.note("list", names);
        t.tried("remove", rustix::fs::lremovexattr(path, "trusted.one"));
        t.tried(
            "remove again",
            rustix::fs::lremovexattr(path, "trusted.one"),
        );
        t.tried(
            "replace nothing",
            rustix::fs::lsetxattr(path, "trusted.no", b"", XattrFlags::REPLACE),
        );
        t.tried(
            "empty value",
            rustix::fs::lsetxattr(path, "trusted.e", b"", XattrFlags::empty()),
        );
    }
}

fn unnamed(t: &mut Transcript) {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(t.at(""), flags, Mode::from_raw_mode(0o640)) {
        Ok(fd) => fd,
        Err(error) => return t.tried("a file without a name", Err::<(), _>(error)),
    };
    let mut file = File::from(fd);
    t.tried("write to it", file.write_all(b"unnamed"));
    t.note("its links", file.metadata().unwrap().nlink());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    t.tried(
        "name it",
        rustix::fs::linkat(
            CWD,
            path.as_str(),
            CWD,
            t.at("named"),
            AtFlags::SYMLINK_FOLLOW,
        ),
    );
    t.note("its content", fs::read(t.at("named")).ok());
    t.note("its links now", file.metadata().unwrap().nlink());
}

fn nodes(t: &mut Transcript) {
    let fifo = t.at("fifo");
    t.tried(
        "mkfifo",
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0),
    );
    t.note("a fifo", fs::metadata(&fifo).unwrap().file_type().is_fifo());
    let zero = t.at("zero");
    t.tried(
        "mknod",
        rustix::fs::mknodat(
            CWD,
            &zero,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(1, 5),
        ),
    );
    t.note("its device", fs::metadata(&zero).unwrap().rdev());
    t.tried(
        "a socket",
        std::os::unix::net::UnixListener::bind(t.at("sock")),
    );
    t.note(
        "is one",
        fs::metadata(t.at("sock"))
            .map(|s| s.file_type().is_socket())
            .ok(),
    );
    t.tried(
        "connect to it",
        std::os::unix::net::UnixStream::connect(t.at("sock")),
    );
    // Both ends of the FIFO are in this process: the kernel in between is the guest's.
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    t.tried("through the fifo", fs::write(&fifo, "through"));
    t.note("came out", reader.join().unwrap());
}

/// Running a program maps it; so do the linker and a database. A file that is mapped and written
/// is read back through the file.
fn programs(t: &mut Transcript) {
    let program = t.at("program");
    t.tried("copy a program", fs::copy("/bin/true", &program));
    t.note(
        "run it",
        std::process::Command::new(&program)
            .status()
            .map(|s| s.code())
            .ok(),
    );
    t.tried(
        "write to it while it is not running",
        File::options().write(true).open(&program),
    );
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(t.at("mapped"))
        .unwrap();
    file.set_len(8192).unwrap();
    t.note(
        "written through a mapping",
        crate::mapping::write(&file, 5000, b"mapped"),
    );
    let mut content = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut content).unwrap();
    t.note("seen in the file", &content[5000..5006]);
}

//! Times: what sets them, what changes them, who may.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

use super::Transcript;
use super::owners::user;

pub fn run(t: &mut Transcript) {
    let at = t.at("times");
    fs::create_dir(&at).unwrap();
    set(t, &at.join("file"));
    far_away(t, &at.join("far"));
    by_whom(t, &at.join("whose"));
    what_changes_them(t, &at);
}

const fn time(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

const OMIT: Timespec = time(0, UTIME_OMIT);
const NOW: Timespec = time(0, UTIME_NOW);

fn change(
    path: &Path,
    last_access: Timespec,
    last_modification: Timespec,
) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access,
        last_modification,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Seconds and nanoseconds of access and modification; what is recent is only that.
fn shown(path: &Path) -> [Option<(i64, i64)>; 2] {
    let s = fs::symlink_metadata(path).unwrap();
    let old = |seconds, nanoseconds| (seconds < 1_700_000_000).then_some((seconds, nanoseconds));
    [
        old(s.atime(), s.atime_nsec()),
        old(s.mtime(), s.mtime_nsec()),
    ]
}

fn set(t: &mut Transcript, path: &Path) {
    fs::write(path, "").unwrap();
    t.tried(
        "both times",
        change(path, time(1000, 1), time(2000, 999_999_999)),
    );
    t.note("are", shown(path));
    t.tried("access only", change(path, time(3000, 7), OMIT));
    t.note("are", shown(path));
    t.tried("modification only", change(path, OMIT, time(4000, 8)));
    t.note("are", shown(path));
    t.tried("neither", change(path, OMIT, OMIT));
    t.note("are", shown(path));
    t.tried("access now", change(path, NOW, OMIT));
    t.note("are", shown(path));
    t.tried("modification now", change(path, time(5000, 0), NOW));
    t.note("are", shown(path));
    t.tried(
        "too many nanoseconds",
        change(path, time(0, 1_000_000_000), OMIT),
    );
    t.tried("of nothing", change(&path.with_extension("no"), NOW, NOW));
    t.tried(
        "nothing of nothing",
        change(&path.with_extension("no"), OMIT, OMIT),
    );
    let link = path.with_extension("link");
    symlink("file", &link).unwrap();
    t.tried("of a link", change(&link, time(6000, 1), time(7000, 2)));
    t.note("the link's", shown(&link)[1]);
    t.note("the file's", shown(path));
}

/// What a file system cannot keep it clips, whoever asks.
fn far_away(t: &mut Transcript, path: &Path) {
    fs::write(path, "").unwrap();
    for seconds in [
        -1,
        -1000,
        -(1 << 31),
        -(1 << 31) - 1,
        1 << 31,
        1 << 32,
        1 << 34,
        1 << 40,
    ] {
        t.tried("set a time far away", change(path, OMIT, time(seconds, 5)));
        let s = fs::metadata(path).unwrap();
        t.note("a time far away is", (s.mtime(), s.mtime_nsec()));
    }
}

fn by_whom(t: &mut Transcript, path: &Path) {
    fs::write(path, "").unwrap();
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for bits in [0o644, 0o666] {
        mode(bits);
        t.tried(
            "a stranger sets times",
            user(|| change(path, time(1, 0), time(2, 0))),
        );
        t.tried(
            "a stranger sets both to now",
            user(|| change(path, NOW, NOW)),
        );
        t.tried(
            "a stranger sets one to now",
            user(|| change(path, NOW, OMIT)),
        );
        t.tried("a stranger omits both", user(|| change(path, OMIT, OMIT)));
    }
    std::os::unix::fs::chown(path, Some(super::owners::USER), None).unwrap();
    mode(0o400);
    t.tried(
        "the owner sets times",
        user(|| change(path, time(8, 1), time(9, 2))),
    );
    t.note("are", shown(path));
}

/// Which of a file's three times an action changes.
fn changed(path: &Path, action: impl FnOnce()) -> [bool; 3] {
    let times = || {
        let s = fs::symlink_metadata(path).unwrap();
        [
            (s.atime(), s.atime_nsec()),
            (s.mtime(), s.mtime_nsec()),
            (s.ctime(), s.ctime_nsec()),
        ]
    };
    let before = times();
    // The kernel's clock for files moves with its ticks.
    std::thread::sleep(Duration::from_millis(25));
    action();
    let after = times();
    [
        before[0] != after[0],
        before[1] != after[1],
        before[2] != after[2],
    ]
}

fn what_changes_them(t: &mut Transcript, at: &Path) {
    let (file, dir, other) = (at.join("changed"), at.join("dir"), at.join("other"));
    fs::write(&file, "content").unwrap();
    fs::create_dir(&dir).unwrap();
    let open = File::options().read(true).write(true).open(&file).unwrap();
    let permissions = fs::metadata(&file).unwrap().permissions();
    let mut row = |what: &str, path: &Path, action: &mut dyn FnMut()| {
        let changes = changed(path, action);
        t.note(what, (changes[1], changes[2]));
    };
    // Not the access time: a mount without `relatime` would differ.
    row("write", &file, &mut || open.write_all_at(b"x", 0).unwrap());
    row("read", &file, &mut || drop(fs::read(&file)));
    row("truncate to the same length", &file, &mut || {
        open.set_len(7).unwrap()
    });
    row("grow", &file, &mut || open.set_len(70).unwrap());
    row("chmod", &file, &mut || {
        fs::set_permissions(&file, permissions.clone()).unwrap()
    });
    row("link", &file, &mut || fs::hard_link(&file, &other).unwrap());
    row("unlink the other", &file, &mut || {
        fs::remove_file(&other).unwrap()
    });
    row("rename", &file, &mut || {
        fs::rename(&file, &other)
            .and_then(|()| fs::rename(&other, &file))
            .unwrap()
    });
    row("open to truncate", &file, &mut || {
        drop(File::create(&file).unwrap())
    });
    row("create in", &dir, &mut || {
        fs::write(dir.join("f"), "").unwrap()
    });
    row("write in", &dir, &mut || {
        fs::write(dir.join("f"), "more").unwrap()
    });
    row("rename in", &dir, &mut || {
        fs::rename(dir.join("f"), dir.join("g")).unwrap()
    });
    row("link in", &dir, &mut || {
        fs::hard_link(dir.join("g"), dir.join("h")).unwrap()
    });
    row("symlink in", &dir, &mut || {
        symlink("x", dir.join("s")).unwrap()
    });
    row("remove in", &dir, &mut || {
        fs::remove_file(dir.join("g")).unwrap()
    });
    row("list", &dir, &mut || {
        assert!(fs::read_dir(&dir).unwrap().count() > 0)
    });
}

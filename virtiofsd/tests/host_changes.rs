//! How soon a guest sees what the host changes: the table in docs/virtiofs.md, row by row.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use lab::guest::UmlGuest;
use lab::need;
use share::{Share, TAG};

/// More than names and attributes are kept for with `--cache auto`.
const A_SECOND: &str = "1.2";

const NEXT: &str = "--- next";
const READY: &str = "--- ready";

/// How soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// By the next look.
    AtOnce,
    /// By a look a second later.
    InASecond,
    /// By neither.
    NotYet,
}

use Seen::{AtOnce, InASecond, NotYet};

/// Something on the host, and how a guest looks at it.
struct Row {
    name: &'static str,
    prepare: fn(&Path),
    look: &'static str,
    change: fn(&Path),
    before: &'static str,
    after: &'static str,
    /// With `never`, `auto`, `metadata`, `always`.
    seen: [Seen; 4],
}

const MODES: [&str; 4] = ["never", "auto", "metadata", "always"];

fn write(path: impl AsRef<Path>, content: &str) {
    fs::write(path, content).unwrap();
}

/// Writes over what is there, as a database would.
fn overwrite(path: impl AsRef<Path>, content: &str) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(content.as_bytes(), 0).unwrap();
}

const ROWS: &[Row] = &[
    Row {
        name: "data, as long as before, in a file that is opened again",
        prepare: |dir| write(dir.join("data"), "old"),
        look: "cat data",
        change: |dir| overwrite(dir.join("data"), "new"),
        before: "old",
        after: "new",
        seen: [AtOnce, AtOnce, AtOnce, NotYet],
    },
    Row {
        name: "data in a file that stays open",
        prepare: |dir| write(dir.join("opened"), "AAAAAAAA"),
        look: "dd bs=1 count=1 <&9 2>/dev/null",
        change: |dir| overwrite(dir.join("opened"), "BBBBBBBB"),
        before: "A",
        after: "B",
        seen: [AtOnce, InASecond, AtOnce, NotYet],
    },
    Row {
        name: "a file's new length and data, read by a program that asks for the length",
        prepare: |dir| write(dir.join("grows"), "old"),
        look: "cat grows",
        change: |dir| write(dir.join("grows"), "longer"),
        before: "old",
        after: "longer",
        seen: [AtOnce, InASecond, AtOnce, AtOnce],
    },
    Row {
        name: "a file's length alone",
        prepare: |dir| write(dir.join("length"), "old"),
        look: "stat -c %s length",
        change: |dir| write(dir.join("length"), "longer"),
        before: "3",
        after: "6",
        seen: [AtOnce, InASecond, NotYet, NotYet],
    },
    Row {
        name: "a file's mode",
        prepare: |dir| write(dir.join("mode"), ""),
        look: "stat -c %a mode",
        change: |dir| {
            fs::set_permissions(dir.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
        },
        before: "644",
        after: "600",
        seen: [AtOnce, InASecond, NotYet, NotYet],
    },
    Row {
        name: "a new name, looked up",
        prepare: |_| (),
        look: "stat -c %F new 2>/dev/null || echo none",
        change: |dir| fs::create_dir(dir.join("new")).unwrap(),
        before: "none",
        after: "directory",
        seen: [AtOnce; 4],
    },
    Row {
        name: "a new name, listed",
        prepare: |dir| fs::create_dir_all(dir.join("listed/one")).unwrap(),
        look: "ls -m listed",
        change: |dir| fs::create_dir(dir.join("listed/two")).unwrap(),
        before: "one",
        after: "one, two",
        seen: [AtOnce; 4],
    },
    Row {
        name: "a name that is gone, looked up",
        prepare: |dir| write(dir.join("gone"), ""),
        look: "stat -c %n gone 2>/dev/null || echo none",
        change: |dir| fs::remove_file(dir.join("gone")).unwrap(),
        before: "gone",
        after: "none",
        seen: [AtOnce, InASecond, NotYet, NotYet],
    },
    Row {
        name: "another file under a name",
        prepare: |dir| write(dir.join("replaced"), "old"),
        look: "cat replaced",
        change: |dir| {
            write(dir.join("replacement"), "new");
            fs::rename(dir.join("replacement"), dir.join("replaced")).unwrap();
        },
        before: "old",
        after: "new",
        seen: [AtOnce, InASecond, NotYet, NotYet],
    },
    Row {
        name: "a link to elsewhere",
        prepare: |dir| symlink("old", dir.join("link")).unwrap(),
        look: "readlink link",
        change: |dir| {
            fs::remove_file(dir.join("link")).unwrap();
            symlink("new", dir.join("link")).unwrap();
        },
        before: "old",
        after: "new",
        seen: [AtOnce, InASecond, NotYet, NotYet],
    },
    Row {
        name: "an extended attribute",
        prepare: |dir| write(dir.join("attribute"), ""),
        look: "getfattr --only-values -n user.name attribute 2>/dev/null || echo none",
        change: |dir| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(dir.join("attribute"), "user.name", b"new", flags).unwrap();
        },
        before: "none",
        after: "new",
        seen: [AtOnce; 4],
    },
];

/// Looks at all rows, in one line of shell.
fn look() -> String {
    let looks = ROWS
        .iter()
        .map(|row| format!("{}; echo '{NEXT}'; ", row.look));
    looks.collect()
}

/// What a guest sees before, right after and a second after the changes, row by row.
fn watch(share: &Share) -> [Vec<String>; 3] {
    for row in ROWS {
        (row.prepare)(&share.directory);
    }
    let look = look();
    let script = format!(
        "mount -t virtiofs {TAG} /mnt && cd /mnt && exec 9< opened && \
         {look} echo '{READY}' && read -r _ && {look} sleep {A_SECOND} && {look}"
    );
    let mut guest = UmlGuest::new(script).fs(&share.socket).start().unwrap();
    guest.wait_output(READY).unwrap();
    for row in ROWS {
        (row.change)(&share.directory);
    }
    guest.write(b"go\n").unwrap();
    let output = guest.wait().unwrap().success().unwrap();
    let output = output.replace('\r', "").replace(READY, "");
    let mut answers = output.split(NEXT).map(|answer| answer.trim().to_owned());
    std::array::from_fn(|_| answers.by_ref().take(ROWS.len()).collect())
}

fn check(mode: &str) {
    need::root().unwrap();
    let share = Share::start_with("fs-changes", |daemon| daemon.args(["--cache", mode]));
    let [before, at_once, later] = watch(&share);
    let column = MODES.iter().position(|known| *known == mode).unwrap();
    for (n, row) in ROWS.iter().enumerate() {
        assert_eq!(before[n], row.before, "{}, before", row.name);
        let (first, second) = match row.seen[column] {
            AtOnce => (Some(row.after), row.after),
            InASecond => (None, row.after),
            NotYet => (Some(row.before), row.before),
        };
        if let Some(first) = first {
            assert_eq!(at_once[n], first, "{}, at once", row.name);
        }
        assert_eq!(later[n], second, "{}, a second later", row.name);
    }
}

#[test]
fn with_cache_never_guests_see_all_at_once() {
    check("never");
}

#[test]
fn with_cache_auto_guests_see_all_in_a_second() {
    check("auto");
}

#[test]
fn with_cache_metadata_guests_see_data() {
    check("metadata");
}

#[test]
fn with_cache_always_guests_see_new_names_only() {
    check("always");
}

/// The table in the documentation is the one that is tested.
#[test]
fn the_documented_table_is_this_one() {
    let page = fs::read_to_string("../docs/virtiofs.md").unwrap();
    for row in ROWS {
        let seen = row.seen.map(|seen| match seen {
            AtOnce => "at once",
            InASecond => "1 s",
            NotYet => "a day",
        });
        let line = format!("| {} | {} |", row.name, seen.join(" | "));
        assert!(page.contains(&line), "docs/virtiofs.md lacks:\n{line}");
    }
}

/// What guests write is on the host when write(2) returns; with `--writeback`, after fsync(2).
#[test]
fn the_host_sees_what_guests_write() {
    need::root().unwrap();
    for (options, sync) in [(&[][..], ""), (&["--writeback"], "sync file;")] {
        let share = Share::start_with("fs-seen", |daemon| daemon.args(options));
        let script = format!(
            "mount -t virtiofs {TAG} /mnt && cd /mnt && exec 9> file && printf content >&9 && \
             {sync} echo '{READY}' && read -r _"
        );
        let mut guest = UmlGuest::new(script).fs(&share.socket).start().unwrap();
        guest.wait_output(READY).unwrap();
        assert_eq!(fs::read(share.directory.join("file")).unwrap(), b"content");
        guest.write(b"go\n").unwrap();
        guest.wait().unwrap().success().unwrap();
    }
}

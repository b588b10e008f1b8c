//! Users: whom new files belong to, what a umask leaves, what clears set-id bits.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{Mode, Uid};
use rustix::process::Gid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Transcript;

pub const USER: u32 = 4321;
pub const GROUP: u32 = 8765;
pub const OTHER_GROUP: u32 = 9999;

pub fn run(t: &mut Transcript) {
    let open = t.at("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    chown(&open, Some(0), Some(OTHER_GROUP)).unwrap();
    umasks(t, &open);
    as_user(t, &open);
    set_id_bits(t, &open);
    inherited_group(t, &open);
    strangers(t, &open);
}

/// Since Linux 6.2 a set-group-ID bit without the group's execute bit goes, too, when somebody writes who
/// is not of the group. (A line that begins with "a stranger's write" may differ.)
fn strangers(t: &mut Transcript, open: &Path) {
    let path = open.join("no-execution");
    for mode in [0o2666, 0o4666, 0o6676] {
        fs::write(&path, "content").unwrap();
        chown(&path, Some(0), Some(77)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        user(|| {
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(b"x")
        })
        .unwrap();
        let bits = if mode == 0o2666 {
            "a stranger's write"
        } else {
            "another stranger's write"
        };
        t.note(bits, shown(&path));
    }
}

pub fn shown(path: &Path) -> Option<(String, u32, u32)> {
    let status = fs::symlink_metadata(path).ok()?;
    Some((format!("{:o}", status.mode()), status.uid(), status.gid()))
}

fn umasks(t: &mut Transcript, open: &Path) {
    for umask in [0o022, 0o077, 0o000, 0o137] {
        let before = rustix::process::umask(Mode::from_raw_mode(umask));
        let (file, dir) = (
            open.join(format!("f{umask}")),
            open.join(format!("d{umask}")),
        );
        File::create(&file).unwrap();
        fs::DirBuilder::new().mode(0o777).create(&dir).unwrap();
        t.note("under a umask", (shown(&file), shown(&dir)));
        rustix::process::umask(before);
    }
}

/// Runs `work` as an ordinary user on a thread of its own.
pub fn user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(GROUP));
            set_thread_groups(&[Gid::from_raw(OTHER_GROUP)]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn as_user(t: &mut Transcript, open: &Path) {
    let (file, dir, link) = (open.join("file"), open.join("dir"), open.join("link"));
    user(|| {
        fs::write(&file, "mine").unwrap();
        fs::create_dir(&dir).unwrap();
        symlink("file", &link).unwrap();
    });
    t.note("a user's", (shown(&file), shown(&dir), shown(&link)));
    let private = open.join("private");
    fs::write(&private, "root's").unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
    t.tried("read another's", user(|| fs::read(&private)));
    t.tried(
        "chmod another's",
        user(|| fs::set_permissions(&private, Permissions::from_mode(0o666))),
    );
    t.tried("give away", user(|| chown(&file, Some(0), None)));
    t.tried(
        "give to a group of one's own",
        user(|| chown(&file, None, Some(OTHER_GROUP))),
    );
    t.note("given", shown(&file));
    t.tried(
        "read-only for oneself",
        user(|| {
            let own = open.join("own");
            fs::write(&own, "x").unwrap();
            fs::set_permissions(&own, Permissions::from_mode(0o400)).unwrap();
            fs::write(&own, "y")
        }),
    );
    let sticky = open.join("sticky");
    fs::create_dir(&sticky).unwrap();
    fs::set_permissions(&sticky, Permissions::from_mode(0o1777)).unwrap();
    fs::write(sticky.join("root"), "").unwrap();
    t.tried(
        "remove another's from a sticky directory",
        user(|| fs::remove_file(sticky.join("root"))),
    );
    let group = open.join("group");
    fs::create_dir(&group).unwrap();
    chown(&group, Some(0), Some(OTHER_GROUP)).unwrap();
    fs::set_permissions(&group, Permissions::from_mode(0o770)).unwrap();
    t.tried(
        "by a supplementary group",
        user(|| fs::write(group.join("file"), "")),
    );
    t.note("made by it", shown(&group.join("file")));
}

fn set_id_bits(t: &mut Transcript, open: &Path) {
    let fresh = |name: &str, mode| {
        let path = open.join(name);
        fs::write(&path, "content").unwrap();
        chown(&path, Some(USER), Some(GROUP)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    for mode in [0o6777, 0o4755, 0o2775, 0o2765] {
        let path = fresh(&format!("s{mode}"), mode);
        let append = |path: &Path| {
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(b"x")
        };
        t.tried("a user writes", user(|| append(&path)));
        t.note("after it", shown(&path));
        let path = fresh(&format!("r{mode}"), mode);
        append(&path).unwrap();
        t.note("root writes", shown(&path));
        let path = fresh(&format!("t{mode}"), mode);
        t.tried(
            "a user truncates",
            user(|| File::options().write(true).open(&path).unwrap().set_len(1)),
        );
        t.note("after it", shown(&path));
        let path = fresh(&format!("a{mode}"), mode);
        let allocate = |path: &Path| {
            let file = File::options().write(true).open(path).unwrap();
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4096)
        };
        t.tried("a user allocates", user(|| allocate(&path)));
        t.note("after it", shown(&path));
        t.tried(
            "root allocates",
            allocate(&fresh(&format!("A{mode}"), mode)),
        );
        t.note("after it", shown(&open.join(format!("A{mode}"))));
        let path = fresh(&format!("o{mode}"), mode);
        t.tried(
            "a user opens to truncate",
            user(|| File::create(&path).map(drop)),
        );
        t.note("after it", shown(&path));
        let path = fresh(&format!("c{mode}"), mode);
        chown(&path, Some(USER + 1), None).unwrap();
        t.note("owner changed", shown(&path));
        let path = fresh(&format!("g{mode}"), mode);
        t.tried(
            "a user changes the group",
            user(|| chown(&path, None, Some(OTHER_GROUP))),
        );
        t.note("after it", shown(&path));
    }
}

fn inherited_group(t: &mut Transcript, open: &Path) {
    let dir = open.join("setgid");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(0), Some(OTHER_GROUP)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o2777)).unwrap();
    user(|| {
        fs::write(dir.join("file"), "").unwrap();
        fs::create_dir(dir.join("dir")).unwrap();
    });
    t.note(
        "inherited",
        (shown(&dir.join("file")), shown(&dir.join("dir"))),
    );
    let foreign = open.join("foreign");
    fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(0), Some(1)).unwrap();
    fs::set_permissions(&foreign, Permissions::from_mode(0o2777)).unwrap();
    let path = foreign.join("set-id");
    user(|| {
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        rustix::fs::open(&path, flags, Mode::from_raw_mode(0o2775)).map(drop)
    })
    .unwrap();
    t.note("set-group-ID for a stranger", shown(&path));
}

//! What a user may do with what is another's: checked by the kernel that the user runs on.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, StatxFlags, accessat, statx};

use super::Transcript;
use super::owners::{GROUP, OTHER_GROUP, USER, shown, user};

pub fn run(t: &mut Transcript) {
    let at = t.at("permissions");
    fs::create_dir(&at).unwrap();
    fs::set_permissions(&at, Permissions::from_mode(0o777)).unwrap();
    matrix(t, &at);
    directories(t, &at);
    sticky(t, &at.join("sticky"));
    owners_and_modes(t, &at);
    status(t, &at);
}

/// Every class of users with every kind of access.
fn matrix(t: &mut Transcript, at: &Path) {
    let path = at.join("matrix");
    for (owner, group) in [(USER, GROUP), (0, GROUP), (0, OTHER_GROUP), (0, 0)] {
        for mode in [
            0o000, 0o400, 0o200, 0o040, 0o020, 0o004, 0o002, 0o077, 0o111, 0o755,
        ] {
            let _ = fs::remove_file(&path);
            fs::write(&path, "x").unwrap();
            chown(&path, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let allowed = user(|| {
                let may = |access| accessat(CWD, &path, access, AtFlags::EACCESS).is_ok();
                (
                    File::open(&path).is_ok(),
                    File::options().write(true).open(&path).is_ok(),
                    [
                        may(Access::READ_OK),
                        may(Access::WRITE_OK),
                        may(Access::EXEC_OK),
                    ],
                )
            });
            t.note(&format!("{owner} {group} {mode:o}"), allowed);
        }
    }
}

fn directories(t: &mut Transcript, at: &Path) {
    let dir = at.join("dir");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    symlink("file", dir.join("link")).unwrap();
    fs::set_permissions(dir.join("file"), Permissions::from_mode(0o666)).unwrap();
    for mode in [0o700, 0o704, 0o701, 0o702, 0o703, 0o705, 0o706] {
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        user(|| {
            let what = format!("in a directory of mode {mode:o}");
            t.tried(
                &format!("list {what}"),
                fs::read_dir(&dir).map(Iterator::count),
            );
            t.tried(&format!("stat {what}"), fs::metadata(dir.join("file")));
            t.tried(&format!("read {what}"), fs::read(dir.join("file")));
            t.tried(&format!("follow {what}"), fs::read(dir.join("link")));
            t.tried(&format!("create {what}"), fs::write(dir.join("new"), ""));
            t.tried(&format!("mkdir {what}"), fs::create_dir(dir.join("newdir")));
            t.tried(
                &format!("rename {what}"),
                fs::rename(dir.join("new"), dir.join("newer")),
            );
            t.tried(
                &format!("move out of {what}"),
                fs::rename(dir.join("newer"), at.join("out")),
            );
            t.tried(&format!("remove {what}"), fs::remove_file(dir.join("new")));
            t.tried(&format!("rmdir {what}"), fs::remove_dir(dir.join("newdir")));
            t.tried(&format!("enter {what}"), fs::metadata(dir.join("sub/.")));
        });
        let _ = fs::remove_file(at.join("out"));
    }
}

fn sticky(t: &mut Transcript, at: &Path) {
    fs::create_dir(at).unwrap();
    fs::set_permissions(at, Permissions::from_mode(0o1777)).unwrap();
    for name in ["a", "b"] {
        fs::write(at.join(name), "").unwrap();
        fs::set_permissions(at.join(name), Permissions::from_mode(0o666)).unwrap();
    }
    fs::create_dir(at.join("dir")).unwrap();
    user(|| {
        fs::write(at.join("own"), "").unwrap();
        t.tried(
            "sticky: rename another's",
            fs::rename(at.join("a"), at.join("c")),
        );
        t.tried(
            "sticky: rename over another's",
            fs::rename(at.join("own"), at.join("a")),
        );
        t.tried(
            "sticky: remove another's directory",
            fs::remove_dir(at.join("dir")),
        );
        t.tried("sticky: move another's into one's own", {
            fs::create_dir(at.join("owndir")).unwrap();
            fs::rename(at.join("b"), at.join("owndir/b"))
        });
        t.tried(
            "sticky: rename one's own",
            fs::rename(at.join("own"), at.join("mine")),
        );
        t.tried("sticky: remove one's own", fs::remove_file(at.join("mine")));
    });
    chown(at, Some(USER), None).unwrap();
    t.tried(
        "sticky: another's in one's own directory",
        user(|| fs::remove_file(at.join("a"))),
    );
}

/// Which changes a user may make, and which bits go with them.
fn owners_and_modes(t: &mut Transcript, at: &Path) {
    let path = at.join("changing");
    let fresh = |owner, group, mode| {
        let _ = fs::remove_file(&path);
        fs::write(&path, "x").unwrap();
        chown(&path, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o644, 0o6755, 0o2644] {
        fresh(USER, GROUP, mode);
        t.tried("chown to oneself", user(|| chown(&path, Some(USER), None)));
        t.note("is", shown(&path));
        fresh(USER, GROUP, mode);
        t.tried("chown of nothing", user(|| chown(&path, None, None)));
        t.note("is", shown(&path));
        fresh(USER, 0, mode);
        t.tried(
            "chgrp to a strange group",
            user(|| chown(&path, None, Some(77))),
        );
        t.tried(
            "chmod to set-group-ID of a strange group",
            user(|| fs::set_permissions(&path, Permissions::from_mode(0o2775))),
        );
        t.note("is", shown(&path));
        fresh(USER, OTHER_GROUP, mode);
        t.tried(
            "chmod to set-group-ID of one's group",
            user(|| fs::set_permissions(&path, Permissions::from_mode(0o2775))),
        );
        t.note("is", shown(&path));
        fresh(0, 0, mode);
        t.tried("root: chown of nothing", chown(&path, None, None));
        t.note("is", shown(&path));
        t.tried("root: chgrp", chown(&path, None, Some(GROUP)));
        t.note("is", shown(&path));
    }
    let dir = at.join("set-id-dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o6775)).unwrap();
    chown(&dir, Some(USER), Some(GROUP)).unwrap();
    t.note("a directory keeps them", shown(&dir));
    fs::create_dir(dir.join("sub")).unwrap();
    t.note("and hands them on", shown(&dir.join("sub")));
    symlink("nowhere", at.join("owned-link")).unwrap();
    t.tried(
        "owner of a link",
        std::os::unix::fs::lchown(at.join("owned-link"), Some(USER), Some(GROUP)),
    );
    t.note("is", shown(&at.join("owned-link")));
}

/// What statx(2) and statfs(2) tell.
fn status(t: &mut Transcript, at: &Path) {
    let file = at.join("status");
    fs::write(&file, vec![1; 10_000]).unwrap();
    File::open(&file).unwrap().sync_all().unwrap();
    symlink("status", at.join("status-link")).unwrap();
    for (name, flags) in [
        ("status", AtFlags::empty()),
        ("status-link", AtFlags::SYMLINK_NOFOLLOW),
        (".", AtFlags::STATX_FORCE_SYNC),
    ] {
        let all = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let s = statx(CWD, at.join(name), flags, all).unwrap();
        t.note(
            "statx",
            (
                s.stx_mode,
                s.stx_nlink,
                s.stx_uid,
                s.stx_gid,
                s.stx_size,
                s.stx_blksize,
            ),
        );
        t.note("blocks", s.stx_blocks);
        t.note("basic fields", s.stx_mask & StatxFlags::BASIC_STATS.bits());
        // Lines that begin so differ where the kernel's FUSE is older than 6.6.
        t.note(
            "time of birth",
            (
                s.stx_mask & StatxFlags::BTIME.bits(),
                s.stx_btime.tv_sec > 1_600_000_000,
            ),
        );
    }
    let (space, status) = (
        rustix::fs::statvfs(&file).unwrap(),
        fs::metadata(&file).unwrap(),
    );
    t.note(
        "block size",
        (space.f_bsize, space.f_frsize, status.blksize()),
    );
    t.note("names", space.f_namemax);
    t.note("files", (space.f_files > 0, space.f_ffree <= space.f_files));
    t.note(
        "blocks",
        (
            space.f_bfree <= space.f_blocks,
            space.f_bavail <= space.f_bfree,
        ),
    );
}

//! New files and changed attributes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fuse_backend_rs::abi::fuse_abi::{SetattrIn, stat64};
use fuse_backend_rs::api::filesystem::{FileSystem, GetxattrReply, SetattrValid};

use super::*;
use crate::file_system::{Creator, FileRange, GuestFileSystem};

fn user() -> Creator {
    let context = Context {
        uid: 4321,
        gid: 8765,
        pid: 1,
    };
    Creator {
        groups: [9999].into_iter().collect(),
        ..Creator::new(context)
    }
}

fn as_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: owners are not tested");
    }
    root
}

#[test]
fn a_file_belongs_to_its_creator_under_its_umask() {
    if !as_root() {
        return;
    }
    let tree = Tree::new();
    let user = user();
    let args = CreateIn {
        flags: 2,
        mode: 0o100_666,
        umask: 0o027,
        fuse_flags: 0,
    };
    tree.fs.create_as(&user, ROOT, c"file", args).unwrap();
    tree.fs.mkdir_as(&user, ROOT, c"dir", 0o777, 0o007).unwrap();
    tree.fs.symlink_as(&user, c"x", ROOT, c"link").unwrap();
    for (name, mode) in [("file", 0o640), ("dir", 0o770), ("link", 0o777)] {
        let status = fs::symlink_metadata(tree.at(name)).unwrap();
        assert_eq!((status.uid(), status.gid()), (4321, 8765), "{name}");
        assert_eq!(status.mode() & 0o7777, mode, "{name}");
    }
    // The thread is the daemon again.
    tree.create(c"own", libc::O_RDWR).unwrap();
    let own = fs::metadata(tree.at("own")).unwrap();
    assert_eq!((own.uid(), own.gid(), own.mode() & 0o777), (0, 0, 0o644));
}

/// In a directory of group 9999 with its set-group-ID bit, only a member of that group may make a
/// file with the bit. Membership comes with the request.
#[test]
fn supplementary_groups_count_when_creating() {
    if !as_root() {
        return;
    }
    let tree = Tree::new();
    fs::create_dir(tree.at("dir")).unwrap();
    std::os::unix::fs::chown(tree.at("dir"), Some(0), Some(9999)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o2777);
    fs::set_permissions(tree.at("dir"), mode).unwrap();
    let dir = tree.lookup(c"dir").unwrap().inode;
    let args = CreateIn {
        flags: 2,
        mode: 0o102_775,
        umask: 0,
        fuse_flags: 0,
    };
    let stranger = Creator {
        groups: Default::default(),
        ..user()
    };
    tree.fs.create_as(&user(), dir, c"member", args).unwrap();
    tree.fs
        .create_as(&stranger, dir, c"stranger", args)
        .unwrap();
    let mode = |name| fs::metadata(tree.at("dir").join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("member"), mode("stranger")), (0o2775, 0o775));
}

#[test]
fn exclusive_means_exclusive() {
    let tree = Tree::new();
    fs::write(tree.at("file"), "content").unwrap();
    assert_errno(
        tree.create(c"file", libc::O_RDWR | libc::O_EXCL),
        libc::EEXIST,
    );
    tree.create(c"file", libc::O_RDWR).unwrap();
    assert_eq!(fs::read(tree.at("file")).unwrap(), b"content");
    tree.create(c"file", libc::O_RDWR | libc::O_TRUNC).unwrap();
    assert_eq!(fs::read(tree.at("file")).unwrap(), b"");
}

#[test]
fn a_file_without_a_name_gets_one() {
    let tree = Tree::new();
    let args = CreateIn {
        flags: 2,
        mode: 0o100_600,
        umask: 0,
        fuse_flags: 0,
    };
    let (entry, handle, ..) = tree.fs.tmpfile(&Creator::new(root()), ROOT, args).unwrap();
    assert_eq!((entry.attr.st_nlink, handle.is_some()), (0, true));
    assert_eq!(fs::read_dir(tree.at("")).unwrap().count(), 0);
    tree.fs.link(&root(), entry.inode, ROOT, c"named").unwrap();
    assert_eq!(
        fs::metadata(tree.at("named")).unwrap().mode() & 0o777,
        0o600
    );
}

fn set(tree: &Tree, inode: u64, input: SetattrIn, valid: SetattrValid) -> io::Result<stat64> {
    Ok(tree
        .fs
        .setattr(&root(), inode, input.into(), None, valid)?
        .0)
}

#[test]
fn attributes_that_make_no_sense_are_refused() {
    let tree = Tree::new();
    let (file, handle) = tree.create(c"file", libc::O_RDWR).unwrap();
    let node = file.inode;
    let nobody = SetattrIn {
        uid: u32::MAX,
        gid: u32::MAX,
        ..Default::default()
    };
    assert_errno(set(&tree, node, nobody, SetattrValid::UID), libc::EINVAL);
    assert_errno(set(&tree, node, nobody, SetattrValid::GID), libc::EINVAL);
    let size = SetattrIn {
        size: u64::MAX,
        ..Default::default()
    };
    assert_errno(set(&tree, node, size, SetattrValid::SIZE), libc::EINVAL);
    // Numbers that utimensat(2) would take for "now" and "leave".
    for nanoseconds in [1_000_000_000, 0x3fff_ffff, 0x3fff_fffe, u32::MAX] {
        let times = SetattrIn {
            atimensec: nanoseconds,
            ..Default::default()
        };
        assert_errno(set(&tree, node, times, SetattrValid::ATIME), libc::EINVAL);
    }
    let range = FileRange {
        inode: node,
        handle,
        offset: u64::MAX,
    };
    for whence in [0, 1, 2, 99, u32::MAX] {
        let FileRange {
            inode,
            handle,
            offset,
        } = range;
        assert_errno(
            tree.fs.lseek(&root(), inode, handle, offset, whence),
            libc::EINVAL,
        );
    }
    assert!(tree.fs.copy_file_range(range, range, u64::MAX).is_err());
    assert!(
        tree.fs
            .fallocate(&root(), node, handle, u32::MAX, u64::MAX, u64::MAX)
            .is_err()
    );
}

#[test]
fn one_request_changes_several_attributes() {
    let tree = Tree::new();
    let node = tree.create(c"file", libc::O_RDWR).unwrap().0.inode;
    let input = SetattrIn {
        mode: 0o4711,
        uid: root().uid,
        gid: root().gid,
        size: 1234,
        mtime: 1_000_000_000,
        mtimensec: 5,
        ..Default::default()
    };
    let valid = SetattrValid::MODE
        | SetattrValid::UID
        | SetattrValid::GID
        | SetattrValid::SIZE
        | SetattrValid::MTIME
        | SetattrValid::ATIME
        | SetattrValid::ATIME_NOW;
    let status = set(&tree, node, input, valid).unwrap();
    assert_eq!(
        (status.st_size, status.st_mtime, status.st_mtime_nsec),
        (1234, 1_000_000_000, 5)
    );
    assert!(status.st_atime > 1_700_000_000);
    // A size that changes clears the bit unless the daemon may keep it; the mode came first.
    assert_eq!(status.st_mode & 0o777, 0o711);
}

#[test]
fn attributes_by_name_reach_links_and_fifos_themselves() {
    if !as_root() {
        return;
    }
    let tree = Tree::new();
    std::os::unix::fs::symlink("../secret", tree.at("link")).unwrap();
    let link = tree.lookup(c"link").unwrap().inode;
    tree.fs
        .setxattr(&root(), link, c"trusted.x", b"value", 0)
        .unwrap();
    let Ok(GetxattrReply::Value(value)) = tree.fs.getxattr(&root(), link, c"trusted.x", 64) else {
        panic!("no value")
    };
    assert_eq!(value, b"value");
    let mut none = [0_u8; 8];
    let secret = tree.outer.path().join("secret");
    assert!(rustix::fs::getxattr(secret, "trusted.x", &mut none[..]).is_err());
    assert_errno(
        tree.fs.getxattr(&root(), link, c"trusted.x", 2).map(drop),
        libc::ERANGE,
    );
    let acl = c"system.posix_acl_access";
    assert_errno(
        tree.fs.setxattr(&root(), link, acl, b"", 0),
        libc::EOPNOTSUPP,
    );
}

#[test]
fn without_xattrs_the_guest_is_told_once() {
    let tree = Tree::with(|config| config.xattr = false);
    assert_errno(
        tree.fs.getxattr(&root(), ROOT, c"user.x", 0).map(drop),
        libc::ENOSYS,
    );
    assert_errno(tree.fs.listxattr(&root(), ROOT, 0).map(drop), libc::ENOSYS);
}

//! Nothing outside the shared directory can be reached, and nothing is done to the host.

use std::fs;
use std::os::unix::fs::symlink;

use fuse_backend_rs::abi::fuse_abi::SetattrIn;
use fuse_backend_rs::api::filesystem::{FileSystem, SetattrValid};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::file_system::{Access, GuestFileSystem};
use crate::fuse::Features;

#[test]
fn names_that_lead_away_are_refused() {
    let tree = Tree::new();
    fs::create_dir(tree.at("dir")).unwrap();
    for name in [c"..", c".", c"", c"../secret", c"/etc", c"dir/..", c"dir/"] {
        assert_errno(tree.lookup(name), libc::EINVAL);
        assert_errno(tree.create(name, libc::O_RDWR), libc::EINVAL);
        assert_errno(tree.fs.mkdir(&root(), ROOT, name, 0o755, 0), libc::EINVAL);
        assert_errno(tree.fs.unlink(&root(), ROOT, name), libc::EINVAL);
        assert_errno(
            tree.fs.rename(&root(), ROOT, c"dir", ROOT, name, 0),
            libc::EINVAL,
        );
        assert_errno(
            tree.fs.rename(&root(), ROOT, name, ROOT, c"x", 0),
            libc::EINVAL,
        );
        assert_errno(tree.fs.symlink(&root(), c"x", ROOT, name), libc::EINVAL);
    }
    assert_eq!(tree.fs.inode_count(), 1);
}

#[test]
fn a_symbolic_link_is_a_link_and_nothing_more() {
    let tree = Tree::new();
    symlink("../secret", tree.at("out")).unwrap();
    symlink("..", tree.at("up")).unwrap();
    symlink("/proc/self/root", tree.at("magic")).unwrap();
    for name in [c"out", c"up", c"magic"] {
        let entry = tree.lookup(name).unwrap();
        assert_eq!(entry.attr.st_mode & libc::S_IFMT, libc::S_IFLNK);
        assert_errno(tree.open(entry.inode, libc::O_RDONLY), libc::ELOOP);
        assert_errno(
            tree.fs.opendir(&root(), entry.inode, 0).map(drop),
            libc::ENOTDIR,
        );
        assert_errno(
            tree.fs.lookup(&root(), entry.inode, c"secret"),
            libc::ENOTDIR,
        );
        assert_errno(tree.create(name, libc::O_RDWR | libc::O_TRUNC), libc::ELOOP);
    }
    // Truncating or changing the mode of a link must not reach what it names.
    let link = tree.lookup(c"out").unwrap().inode;
    let size = tree.fs.setattr(
        &root(),
        link,
        SetattrIn::default().into(),
        None,
        SetattrValid::SIZE,
    );
    assert_errno(size, libc::ELOOP);
    let mode = tree.fs.setattr(
        &root(),
        link,
        SetattrIn::default().into(),
        None,
        SetattrValid::MODE,
    );
    assert_errno(mode, libc::EOPNOTSUPP);
    assert_eq!(
        fs::read(tree.outer.path().join("secret")).unwrap(),
        b"secret"
    );
    let target = tree.fs.readlink(&root(), link).unwrap();
    assert_eq!(target, b"../secret");
}

#[test]
fn the_roots_parent_is_the_root() {
    let tree = Tree::new();
    let handle = tree.fs.opendir(&root(), ROOT, 0).unwrap().0.unwrap();
    let own = fs::metadata(tree.at(""))
        .map(|s| std::os::unix::fs::MetadataExt::ino(&s))
        .unwrap();
    let mut numbers = Vec::new();
    let mut add = |entry: fuse_backend_rs::api::filesystem::DirEntry<'_>| {
        numbers.push(entry.ino);
        Ok(1)
    };
    tree.fs
        .readdir(&root(), ROOT, handle, 4096, 0, &mut add)
        .unwrap();
    assert_eq!(numbers, [own, own]);
}

#[test]
fn device_nodes_and_fifos_are_never_opened() {
    let tree = Tree::new();
    mknodat(
        CWD,
        tree.at("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let fifo = tree.lookup(c"fifo").unwrap().inode;
    // Opening it for real would wait for a reader.
    assert_errno(tree.open(fifo, libc::O_WRONLY), libc::ENXIO);
    let truncated = SetattrValid::SIZE;
    let size = tree
        .fs
        .setattr(&root(), fifo, SetattrIn::default().into(), None, truncated);
    assert_errno(size, libc::ENXIO);
    assert_errno(tree.create(c"fifo", libc::O_RDWR), libc::ENXIO);
}

#[test]
fn forged_numbers_are_refused() {
    let tree = Tree::new();
    let (one, handle) = tree.create(c"one", libc::O_RDWR).unwrap();
    let (two, _) = tree.create(c"two", libc::O_RDWR).unwrap();
    assert_errno(tree.fs.getattr(&root(), 77, None), libc::ESTALE);
    assert_errno(tree.fs.getattr(&root(), u64::MAX, None), libc::ESTALE);
    assert_errno(
        tree.fs.io_file(two.inode, handle, Access::Read),
        libc::EBADF,
    );
    assert_errno(tree.fs.io_file(one.inode, 1000, Access::Read), libc::EBADF);
    assert_errno(
        tree.fs.getattr(&root(), two.inode, Some(handle)),
        libc::EBADF,
    );
    let directory = tree.fs.opendir(&root(), ROOT, 0).unwrap().0.unwrap();
    assert_errno(tree.fs.io_file(ROOT, directory, Access::Read), libc::EBADF);
    let listed = tree
        .fs
        .readdir(&root(), one.inode, handle, 4096, 0, &mut |_| Ok(1));
    assert_errno(listed, libc::ENOTDIR);
    assert_errno(
        tree.fs
            .release(&root(), two.inode, 0, handle, false, false, None),
        libc::EBADF,
    );
    tree.fs
        .release(&root(), one.inode, 0, handle, false, false, None)
        .unwrap();
    assert_errno(
        tree.fs.io_file(one.inode, handle, Access::Read),
        libc::EBADF,
    );
}

#[test]
fn a_read_only_share_stays_as_it_is() {
    let tree = Tree::with(|config| config.read_only = true);
    fs::write(tree.at("file"), "content").unwrap();
    let file = tree.lookup(c"file").unwrap().inode;
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_errno(tree.open(file, flags), libc::EROFS);
    }
    assert_errno(tree.create(c"file", libc::O_RDONLY), libc::EROFS);
    assert_errno(tree.create(c"new", libc::O_RDWR), libc::EROFS);
    assert_errno(tree.fs.unlink(&root(), ROOT, c"file"), libc::EROFS);
    assert_errno(
        tree.fs.rename(&root(), ROOT, c"file", ROOT, c"x", 0),
        libc::EROFS,
    );
    assert_errno(tree.fs.link(&root(), file, ROOT, c"x"), libc::EROFS);
    assert_errno(
        tree.fs.setxattr(&root(), file, c"user.x", b"", 0),
        libc::EROFS,
    );
    let mode = SetattrValid::MODE;
    let set = tree
        .fs
        .setattr(&root(), file, SetattrIn::default().into(), None, mode);
    assert_errno(set, libc::EROFS);
    tree.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(fs::read_dir(tree.at("")).unwrap().count(), 1);
}

/// Another daemon, or an earlier process with other options, has opened it.
#[test]
fn a_read_only_share_takes_no_file_over_that_is_open_for_writing() {
    let tree = Tree::new();
    let taken_over = || {
        let config = Config {
            read_only: true,
            ..Config::new(tree.outer.path().join("shared"))
        };
        let next = Passthrough::open(config).unwrap();
        let saved = tree.fs.save(Some(Features::NONE)).unwrap();
        next.load(&saved).map(|_| next)
    };
    let (entry, handle) = tree.create(c"file", libc::O_WRONLY).unwrap();
    assert_errno(taken_over(), libc::EROFS);
    tree.fs
        .release(&root(), entry.inode, 0, handle, false, false, None)
        .unwrap();
    let handle = tree.open(entry.inode, libc::O_RDONLY).unwrap();
    let next = taken_over().unwrap();
    let file = next.io_file(entry.inode, handle, Access::Read).unwrap();
    assert!(file.is_some());
}

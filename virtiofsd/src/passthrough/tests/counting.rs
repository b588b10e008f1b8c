//! Lookups are counted: what the guest forgets is gone, and nothing else is.

use std::fs;
use std::io;

use fuse_backend_rs::api::filesystem::FileSystem;
use rustix::fs::{Mode, OFlags};

use super::super::handles::{NewHandle, Opened};
use super::*;

fn many(tree: &Tree, count: usize) {
    for n in 0..count {
        fs::write(tree.at(format!("file-{n:03}")), "").unwrap();
    }
}

#[test]
fn a_walk_and_its_forgetting_leave_the_root_only() {
    let tree = Tree::new();
    many(&tree, 50);
    fs::create_dir_all(tree.at("a/b/c")).unwrap();
    let mut counted = Vec::new();
    let mut parent = ROOT;
    for name in [c"a", c"b", c"c"] {
        parent = tree.fs.lookup(&root(), parent, name).unwrap().inode;
        counted.push(parent);
    }
    for _ in 0..3 {
        counted.push(tree.lookup(c"file-007").unwrap().inode);
    }
    assert_eq!(tree.fs.inode_count(), 5);
    let forget = counted.into_iter().map(|inode| (inode, 1)).collect();
    tree.fs.batch_forget(&root(), forget);
    assert_eq!(tree.fs.inode_count(), 1);
}

#[test]
fn readdirplus_counts_what_fits_and_nothing_else() {
    let tree = Tree::new();
    many(&tree, 20);
    let handle = tree.fs.opendir(&root(), ROOT, 0).unwrap().0.unwrap();
    let (mut offset, mut listed) = (0, Vec::new());
    loop {
        let (before, start) = (listed.len(), offset);
        let mut add = |dirent: fuse_backend_rs::api::filesystem::DirEntry<'_>, entry: Entry| {
            if listed.len() == before + 6 {
                return Ok(0);
            }
            let own = matches!(dirent.name, b"." | b"..");
            assert_eq!(entry.inode == 0, own, "the directory itself is not counted");
            offset = dirent.offset;
            listed.push((dirent.name.to_vec(), entry.inode));
            Ok(1)
        };
        tree.fs
            .readdirplus(&root(), ROOT, handle, 4096, start, &mut add)
            .unwrap();
        if listed.len() == before {
            break;
        }
    }
    let names: std::collections::BTreeSet<_> = listed.iter().map(|(name, _)| name).collect();
    assert_eq!((names.len(), listed.len()), (22, 22), "each once");
    assert_eq!(tree.fs.inode_count(), 21);
    for (_, inode) in listed {
        tree.fs.forget(&root(), inode, 1);
    }
    assert_eq!(tree.fs.inode_count(), 1, "one lookup each");
}

#[test]
fn an_error_while_listing_counts_nothing() {
    let tree = Tree::new();
    many(&tree, 3);
    let handle = tree.fs.opendir(&root(), ROOT, 0).unwrap().0.unwrap();
    let mut add = |_: fuse_backend_rs::api::filesystem::DirEntry<'_>, _: Entry| {
        Err(io::Error::from_raw_os_error(libc::EIO))
    };
    assert_errno(
        tree.fs
            .readdirplus(&root(), ROOT, handle, 4096, 0, &mut add),
        libc::EIO,
    );
    assert_eq!(tree.fs.inode_count(), 1);
}

#[test]
fn what_cannot_be_opened_is_not_counted() {
    let tree = Tree::new();
    fs::create_dir(tree.at("dir")).unwrap();
    assert_errno(tree.create(c"dir", libc::O_RDWR), libc::EISDIR);
    assert_eq!((tree.fs.inode_count(), tree.fs.handle_count()), (1, 0));
}

/// A file system behind a network may fail to unlock.
#[test]
fn a_handle_goes_also_when_its_lock_cannot_be_given_back() {
    let tree = Tree::new();
    let (entry, _) = tree.create(c"file", libc::O_RDWR).unwrap();
    // flock(2) refuses such a descriptor.
    let fd = rustix::fs::open(tree.at("file"), OFlags::PATH, Mode::empty()).unwrap();
    let handle = tree.fs.handles.add(NewHandle {
        inode: entry.inode,
        fd,
        flags: OFlags::RDONLY,
        medium: tree.fs.media.waiting(),
        opened: Opened::File,
        counted: tree.fs.places.budget().handle().unwrap(),
    });
    assert_eq!(tree.fs.handle_count(), 2);
    tree.fs
        .release(&root(), entry.inode, 0, handle, false, true, Some(1))
        .unwrap();
    assert_eq!(tree.fs.handle_count(), 1);
}

#[test]
fn a_new_guest_finds_nothing_of_the_old_one() {
    let tree = Tree::new();
    let (entry, handle) = tree.create(c"file", libc::O_RDWR).unwrap();
    tree.fs.destroy();
    assert_eq!((tree.fs.inode_count(), tree.fs.handle_count()), (1, 0));
    assert_errno(tree.fs.getattr(&root(), entry.inode, None), libc::ESTALE);
    assert_errno(tree.fs.flush(&root(), entry.inode, handle, 0), libc::EBADF);
    assert_ne!(tree.lookup(c"file").unwrap().inode, entry.inode);
}

#[test]
fn two_names_of_one_file_are_one_node() {
    let tree = Tree::new();
    let (one, _) = tree.create(c"one", libc::O_RDWR).unwrap();
    let two = tree.fs.link(&root(), one.inode, ROOT, c"two").unwrap();
    assert_eq!((one.inode, two.attr.st_nlink), (two.inode, 2));
    tree.fs.forget(&root(), one.inode, 1);
    assert_eq!(
        tree.fs
            .getattr(&root(), two.inode, None)
            .unwrap()
            .0
            .st_nlink,
        2
    );
    tree.fs.unlink(&root(), ROOT, c"one").unwrap();
    tree.fs.unlink(&root(), ROOT, c"two").unwrap();
    assert_eq!(
        tree.fs
            .getattr(&root(), two.inode, None)
            .unwrap()
            .0
            .st_nlink,
        0
    );
}

/// Nodes by descriptor, and by name.
fn with_few_nodes() -> [Tree; 2] {
    [None, Some(0)].map(|max_open| {
        Tree::with(|config| {
            config.max_nodes = Some(6);
            config.max_open = max_open;
            config.file_handles = super::super::FileHandles::Never;
        })
    })
}

#[test]
fn what_there_is_no_room_for_is_not_made() {
    for tree in with_few_nodes() {
        many(&tree, 8);
        let known: Vec<u64> = [
            c"file-000",
            c"file-001",
            c"file-002",
            c"file-003",
            c"file-004",
        ]
        .map(|name| tree.lookup(name).unwrap().inode)
        .into();
        let fs = &tree.fs;
        assert_errno(tree.lookup(c"file-005"), libc::ENFILE);
        assert_errno(tree.create(c"new", libc::O_RDWR), libc::ENFILE);
        assert_errno(fs.mkdir(&root(), ROOT, c"new", 0o755, 0), libc::ENFILE);
        let fifo = libc::S_IFIFO | 0o644;
        assert_errno(fs.mknod(&root(), ROOT, c"new", fifo, 0, 0), libc::ENFILE);
        assert_errno(fs.symlink(&root(), c"to", ROOT, c"new"), libc::ENFILE);
        assert!(fs::symlink_metadata(tree.at("new")).is_err());
        // What is known can be used, also to make another name of it.
        assert_eq!(tree.lookup(c"file-000").unwrap().inode, known[0]);
        let link = fs.link(&root(), known[0], ROOT, c"link").unwrap();
        assert_eq!(link.inode, known[0]);
        fs.forget(&root(), known[1], 1);
        let made = tree.create(c"new", libc::O_RDWR).unwrap().0.inode;
        assert_errno(tree.lookup(c"file-001"), libc::ENFILE);
        fs.forget(&root(), made, 1);
        tree.lookup(c"file-001").unwrap();
    }
}

#[test]
fn a_listing_without_room_for_nodes_has_all_names() {
    for tree in with_few_nodes() {
        many(&tree, 8);
        let handle = tree.fs.opendir(&root(), ROOT, 0).unwrap().0.unwrap();
        let mut nodes = Vec::new();
        let mut add = |_: fuse_backend_rs::api::filesystem::DirEntry<'_>, entry: Entry| {
            nodes.push(entry.inode);
            Ok(1)
        };
        tree.fs
            .readdirplus(&root(), ROOT, handle, 4096, 0, &mut add)
            .unwrap();
        // With the directory itself and its parent.
        assert_eq!(nodes.len(), 10);
        assert_eq!(nodes.iter().filter(|node| **node != 0).count(), 5);
    }
}

/// They stay in memory for as long as files are found by way of them.
#[test]
fn directories_that_were_forgotten_count_while_others_are_below_them() {
    let [_, tree] = with_few_nodes();
    let mut parent = ROOT;
    for _ in 0..5 {
        let made = tree.fs.mkdir(&root(), parent, c"below", 0o755, 0).unwrap();
        tree.fs.forget(&root(), parent, 1);
        parent = made.inode;
    }
    assert_eq!(tree.fs.inode_count(), 2, "the root and the last one");
    let more = tree.fs.mkdir(&root(), parent, c"below", 0o755, 0);
    assert_errno(more, libc::ENFILE);
    tree.fs.forget(&root(), parent, 1);
    for name in [c"a", c"b", c"c", c"d", c"e"] {
        tree.create(name, libc::O_RDWR).unwrap();
    }
}

//! Nodes without a descriptor are found again: by handle, and by their names.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use fuse_backend_rs::abi::fuse_abi::stat64;
use fuse_backend_rs::api::filesystem::FileSystem;

use super::super::FileHandles;
use super::*;

/// Trees that keep nothing open, but for two directories in the second.
fn trees() -> [Tree; 3] {
    let tree = |file_handles, max_open| {
        let tree = Tree::with(|config| {
            config.file_handles = file_handles;
            config.max_open = Some(max_open);
        });
        for n in 0..max_open {
            let name = format!("filler-{n}");
            fs::write(tree.at(&name), "").unwrap();
            tree.walk(&name).unwrap();
        }
        tree
    };
    [
        tree(FileHandles::Never, 0),
        tree(FileHandles::Never, 8),
        tree(FileHandles::AsNeeded, 0),
    ]
}

/// Trees that go by names.
fn named_trees() -> impl Iterator<Item = Tree> {
    trees().into_iter().take(2)
}

impl Tree {
    fn walk(&self, path: &str) -> io::Result<u64> {
        path.split('/').try_fold(ROOT, |parent, name| {
            let name = CString::new(name).unwrap();
            Ok(self.fs.lookup(&root(), parent, &name)?.inode)
        })
    }

    fn status(&self, inode: u64) -> io::Result<stat64> {
        Ok(self.fs.getattr(&root(), inode, None)?.0)
    }

    fn length(&self, inode: u64) -> i64 {
        self.status(inode).unwrap().st_size
    }

    fn rename(&self, from: (u64, &CStr), to: (u64, &CStr)) {
        self.fs
            .rename(&root(), from.0, from.1, to.0, to.1, 0)
            .unwrap();
    }
}

fn deep(tree: &Tree) -> (u64, u64) {
    fs::create_dir_all(tree.at("a/b/c")).unwrap();
    fs::write(tree.at("a/b/c/file"), "content").unwrap();
    (tree.walk("a").unwrap(), tree.walk("a/b/c/file").unwrap())
}

#[test]
fn a_file_is_found_below_directories_that_guests_rename() {
    for tree in trees() {
        let (a, file) = deep(&tree);
        fs::create_dir(tree.at("other")).unwrap();
        let other = tree.walk("other").unwrap();
        tree.rename((ROOT, c"a"), (other, c"z"));
        assert_eq!(tree.length(file), 7);
        tree.rename((a, c"b"), (ROOT, c"b"));
        assert_eq!(tree.length(file), 7);
        assert_eq!(tree.walk("b/c/file").unwrap(), file);
        let handle = tree.open(file, libc::O_RDONLY).unwrap();
        tree.fs.flush(&root(), file, handle, 0).unwrap();
    }
}

#[test]
fn exchanged_names_are_exchanged() {
    for tree in trees() {
        fs::write(tree.at("one"), "1").unwrap();
        fs::write(tree.at("three"), "333").unwrap();
        let [one, three] = ["one", "three"].map(|name| tree.walk(name).unwrap());
        let flags = libc::RENAME_EXCHANGE;
        tree.fs
            .rename(&root(), ROOT, c"one", ROOT, c"three", flags)
            .unwrap();
        assert_eq!((tree.length(one), tree.length(three)), (1, 3));
        assert_eq!(tree.walk("one").unwrap(), three);
    }
}

/// A file without a name goes on while the guest knows it, as on the host while it is open.
#[test]
fn what_guests_remove_or_replace_lives_on() {
    for tree in named_trees() {
        for name in ["removed", "replaced", "new"] {
            fs::write(tree.at(name), name).unwrap();
        }
        fs::create_dir(tree.at("empty")).unwrap();
        let [removed, replaced] = ["removed", "replaced"].map(|name| tree.walk(name).unwrap());
        let empty = tree.walk("empty").unwrap();
        let handle = tree.open(removed, libc::O_RDONLY).unwrap();
        tree.fs.unlink(&root(), ROOT, c"removed").unwrap();
        tree.fs.rmdir(&root(), ROOT, c"empty").unwrap();
        tree.rename((ROOT, c"new"), (ROOT, c"replaced"));
        assert_eq!(tree.status(removed).unwrap().st_nlink, 0);
        assert_eq!((tree.length(removed), tree.length(replaced)), (7, 8));
        assert_eq!(tree.status(empty).unwrap().st_nlink, 0);
        assert_ne!(tree.walk("replaced").unwrap(), replaced);
        tree.fs
            .release(&root(), removed, 0, handle, false, false, None)
            .unwrap();
        tree.fs.forget(&root(), removed, 1);
        assert_errno(tree.status(removed), libc::ESTALE);
    }
}

#[test]
fn another_name_of_a_file_serves_as_well() {
    for tree in trees() {
        fs::write(tree.at("one"), "content").unwrap();
        let node = tree.walk("one").unwrap();
        let two = tree.fs.link(&root(), node, ROOT, c"two").unwrap();
        assert_eq!((two.inode, two.attr.st_nlink), (node, 2));
        tree.fs.unlink(&root(), ROOT, c"one").unwrap();
        assert_eq!(tree.length(node), 7);
        tree.fs.link(&root(), node, ROOT, c"three").unwrap();
        tree.fs.unlink(&root(), ROOT, c"three").unwrap();
        tree.fs.link(&root(), node, ROOT, c"one").unwrap();
        // Two names of one file: rename(2) leaves both.
        tree.rename((ROOT, c"one"), (ROOT, c"two"));
        assert_eq!(tree.walk("one").unwrap(), node);
        tree.fs.unlink(&root(), ROOT, c"one").unwrap();
        assert_eq!(tree.status(node).unwrap().st_nlink, 1);
    }
}

/// The guest's kernel looks up again what is stale.
#[test]
fn what_the_host_renames_is_found_when_it_is_looked_up_again() {
    for tree in named_trees() {
        let (_, file) = deep(&tree);
        let c = tree.walk("a/b/c").unwrap();
        fs::rename(tree.at("a/b"), tree.at("moved")).unwrap();
        // What was open may be used for a while still.
        let status = tree.status(file);
        assert!(status.is_ok() || status.unwrap_err().raw_os_error() == Some(libc::ESTALE));
        assert_eq!(tree.walk("moved/c/file").unwrap(), file);
        assert_eq!(tree.length(file), 7);
        assert_eq!(tree.walk("moved/c").unwrap(), c);
        fs::rename(tree.at("moved/c/file"), tree.at("moved/c/name")).unwrap();
        assert_errno(tree.status(file), libc::ESTALE);
        assert_errno(tree.open(file, libc::O_RDONLY), libc::ESTALE);
        assert_eq!(tree.walk("moved/c/name").unwrap(), file);
        assert_eq!(tree.length(file), 7);
    }
}

/// Also when it has got the inode number of the one before.
#[test]
fn another_file_under_the_name_is_another_node() {
    for tree in trees() {
        let before = tree.fs.inode_count();
        for round in 0..20 {
            fs::write(tree.at("file"), "old").unwrap();
            let node = tree.walk("file").unwrap();
            fs::remove_file(tree.at("file")).unwrap();
            fs::write(tree.at("file"), "newer").unwrap();
            assert_errno(tree.status(node), libc::ESTALE);
            let new = tree.walk("file").unwrap();
            assert_ne!(new, node, "round {round}");
            assert_eq!(tree.length(new), 5);
            tree.fs.forget(&root(), node, 1);
            tree.fs.forget(&root(), new, 1);
        }
        assert_eq!(tree.fs.inode_count(), before);
    }
}

/// Names are walked again; what the host has put in their place meanwhile must not lead away.
#[test]
fn no_link_on_the_way_is_followed() {
    for tree in named_trees() {
        fs::create_dir_all(tree.outer.path().join("outside/c")).unwrap();
        fs::create_dir_all(tree.at("a/b/c")).unwrap();
        fs::write(tree.at("a/b/c/file"), "inside").unwrap();
        // The same file, by a way that leaves the directory.
        fs::hard_link(
            tree.at("a/b/c/file"),
            tree.outer.path().join("outside/c/file"),
        )
        .unwrap();
        let file = tree.walk("a/b/c/file").unwrap();
        for target in ["../../outside", "/proc/self/root", "."] {
            fs::rename(tree.at("a/b"), tree.at("kept")).unwrap();
            symlink(target, tree.at("a/b")).unwrap();
            // Directories that were open may be used for a while still: not with the first tree.
            if tree.fs.config.max_open == Some(0) {
                assert_errno(tree.status(file), libc::ESTALE);
            }
            assert_errno(tree.walk("a/b/c").map(drop), libc::ENOTDIR);
            fs::remove_file(tree.at("a/b")).unwrap();
            fs::rename(tree.at("kept"), tree.at("a/b")).unwrap();
            assert_eq!(tree.length(file), 6);
        }
    }
}

#[test]
fn paths_longer_than_the_system_takes_are_walked_in_parts() {
    const LEVELS: usize = 60;
    for tree in named_trees() {
        let mut parent = ROOT;
        for level in 0..LEVELS {
            let name = CString::new(format!("{level:0200}")).unwrap();
            parent = tree
                .fs
                .mkdir(&root(), parent, &name, 0o755, 0)
                .unwrap()
                .inode;
        }
        let args = CreateIn {
            flags: 2,
            mode: 0o644,
            umask: 0,
            fuse_flags: 0,
        };
        let (file, ..) = tree.fs.create(&root(), parent, c"file", args).unwrap();
        assert_eq!(tree.status(file.inode).unwrap().st_nlink, 1);
        let first = CString::new(format!("{:0200}", 0)).unwrap();
        tree.rename((ROOT, &first), (ROOT, c"first"));
        assert_eq!(tree.status(file.inode).unwrap().st_nlink, 1);
    }
}

/// A directory never becomes its own ancestor, whatever way guests move things around.
#[test]
fn directories_change_places() {
    for tree in trees() {
        fs::create_dir_all(tree.at("a/b")).unwrap();
        fs::write(tree.at("a/b/file"), "content").unwrap();
        let [a, b, file] = ["a", "a/b", "a/b/file"].map(|path| tree.walk(path).unwrap());
        for _ in 0..3 {
            tree.rename((a, c"b"), (ROOT, c"b"));
            tree.rename((ROOT, c"a"), (b, c"a"));
            assert_eq!((tree.length(file), tree.walk("b/a").unwrap()), (7, a));
            tree.rename((b, c"a"), (ROOT, c"a"));
            tree.rename((ROOT, c"b"), (a, c"b"));
            assert_eq!((tree.length(file), tree.walk("a/b").unwrap()), (7, b));
        }
        tree.fs.destroy();
        assert_errno(tree.status(file), libc::ESTALE);
    }
}

#[test]
fn one_queue_renames_while_another_uses() {
    for tree in named_trees() {
        let (a, file) = deep(&tree);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let used = scope.spawn(|| {
                let mut count = 0;
                while !ended.load(Ordering::Relaxed) || count == 0 {
                    assert_eq!(tree.length(file), 7);
                    count += 1;
                }
                count
            });
            for _ in 0..300 {
                tree.rename((a, c"b"), (ROOT, c"elsewhere"));
                tree.rename((ROOT, c"elsewhere"), (a, c"b"));
            }
            ended.store(true, Ordering::Relaxed);
            assert!(used.join().unwrap() > 0);
        });
    }
}

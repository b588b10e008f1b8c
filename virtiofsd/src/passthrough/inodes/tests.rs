//! Lookups, counted from several threads.

use super::super::FileHandles;
use super::super::moves::Names;
use super::super::named::Named;
use super::super::place::Way;
use super::super::proof::Proof;
use super::*;

fn table() -> (tempfile::TempDir, InodeTable) {
    let dir = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    let places = Places::new(FileHandles::AsNeeded, None);
    let limit = NodeLimit::new(None);
    (dir, InodeTable::new(root.into(), &places, limit).unwrap())
}

fn look_up(table: &InodeTable, dir: &tempfile::TempDir, name: &str) -> Arc<Inode> {
    let path = dir.path().join(name);
    std::fs::write(&path, "").unwrap();
    let fd = OwnedFd::from(std::fs::File::open(path).unwrap());
    let status = status_of(&fd).unwrap();
    table.known(&status, None).unwrap_or_else(|| {
        let kept = Places::new(FileHandles::AsNeeded, None).keep(fd).unwrap();
        let place = Place::new(Some(kept), None);
        table.add(place, &status, None).unwrap()
    })
}

#[test]
fn one_file_is_one_node_until_all_lookups_are_forgotten() {
    let (dir, table) = table();
    let first = look_up(&table, &dir, "a");
    assert_eq!(look_up(&table, &dir, "a").id, first.id);
    table.forget(first.id, 1);
    assert_eq!(table.get(first.id).unwrap().id, first.id);
    table.forget(first.id, 1);
    assert!(table.get(first.id).is_err());
    assert_ne!(
        look_up(&table, &dir, "a").id,
        first.id,
        "numbers are not used again"
    );
    assert_eq!(table.len(), 2);
}

#[test]
fn forgetting_too_much_or_nothing_is_harmless() {
    let (dir, table) = table();
    let node = look_up(&table, &dir, "a").id;
    table.forget(node, 0);
    assert_eq!(table.len(), 2);
    table.forget(node, u64::MAX);
    table.forget(node, 1);
    table.forget(ROOT, u64::MAX);
    table.forget(12345, 1);
    assert_eq!(table.len(), 1);
    assert!(table.get(ROOT).is_ok());
}

#[test]
fn queues_that_look_up_and_forget_the_same_file_agree() {
    let (dir, table) = table();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let node = look_up(&table, &dir, "a");
                    assert!(table.get(node.id).is_ok(), "a counted node is there");
                    table.forget(node.id, 1);
                }
            });
        }
    });
    assert_eq!(table.len(), 1);
    assert!(
        table
            .by_identity
            .iter()
            .all(|shard| shard.read().unwrap().is_empty())
    );
}

/// A guest may make directories as deep as it likes: what goes must not go by recursion.
#[test]
fn a_long_line_of_ancestors_goes_at_once() {
    const DEPTH: u64 = 200_000;
    let (dir, table) = table();
    let names = Arc::new(Names::new(0));
    let mut status = status_of(std::fs::File::open(dir.path()).unwrap()).unwrap();
    let mut parent = table.root().clone();
    for _ in 0..DEPTH {
        status.attributes.st_ino += 1;
        let place = Named::new(&names, Proof::of(&status, None), Some((&parent, c"name")));
        let place = Place::new(None, Some(Way::Named(Box::new(place))));
        parent = table.add(place, &status, None).unwrap();
        // Only the next one knows it from now on.
        if parent.id % 2 == 0 {
            table.forget(parent.id, 1);
        }
    }
    assert_eq!(table.len() as u64, 1 + DEPTH / 2);
    drop(parent);
    table.clear();
    assert_eq!((table.len(), Arc::strong_count(table.root())), (1, 1));
}

//! Lookups, counted from several threads.

use super::super::FileHandles;
use super::*;

fn table() -> (tempfile::TempDir, InodeTable) {
    let dir = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    let places = Places::new(FileHandles::AsNeeded, None);
    (dir, InodeTable::new(root.into(), &places).unwrap())
}

fn look_up(table: &InodeTable, dir: &tempfile::TempDir, name: &str) -> Arc<Inode> {
    let path = dir.path().join(name);
    std::fs::write(&path, "").unwrap();
    let fd = OwnedFd::from(std::fs::File::open(path).unwrap());
    let status = status_of(&fd).unwrap();
    table.known(&status, None).unwrap_or_else(|| {
        table.add(
            Places::new(FileHandles::AsNeeded, None).keep(fd).unwrap(),
            &status,
            None,
        )
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

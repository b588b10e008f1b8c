use super::*;

struct Deaths(File);

impl Deaths {
    fn new() -> Self {
        Self(tempfile::tempfile().unwrap())
    }

    fn next(&self) -> (Arc<Ledger>, Saved) {
        let ledger = Ledger::open(self.0.try_clone().unwrap()).unwrap();
        let saved = ledger.load();
        (ledger, saved)
    }
}

fn node(id: u64, name: &str) -> SavedNode {
    SavedNode {
        id,
        lookups: 3,
        device: 0x1234_5678_9abc,
        inode: u64::MAX - id,
        kind: libc::S_IFREG,
        born: Some((-5, 999_999_999)),
        handle: Some(FileHandle::from_parts(-7, &[9; 128])),
        by_handle: true,
        at: Some((1, CString::new(name).unwrap())),
    }
}

/// As when a process is killed: nothing is dropped.
fn die<T>(all: T) {
    std::mem::forget(all);
}

#[test]
fn nodes_and_open_files_outlive_a_death() {
    let deaths = Deaths::new();
    let (ledger, saved) = deaths.next();
    assert!(saved.nodes.is_empty() && saved.open.is_empty());
    let nodes = [
        node(2, &"n".repeat(255)),
        SavedNode {
            born: None,
            handle: None,
            by_handle: false,
            kind: libc::S_IFDIR,
            ..node(3, "d")
        },
        SavedNode {
            at: None,
            born: Some((7, 0)),
            ..node(4, "")
        },
    ];
    let opened = [(true, 0), (false, 0o100_002)].map(|(directory, flags)| SavedOpen {
        number: 5,
        inode: 2,
        flags,
        directory,
    });
    die(nodes.clone().map(|node| ledger.add_node(&node)));
    die(opened.map(|open| ledger.add_open(&open)));
    let (_ledger, saved) = deaths.next();
    let found: Vec<_> = saved.nodes.iter().map(|(node, _)| node.clone()).collect();
    assert_eq!(found, nodes);
    let found: Vec<_> = saved.open.iter().map(|(open, _)| *open).collect();
    assert_eq!(found, opened);
}

#[test]
fn counts_and_names_are_the_latest() {
    let deaths = Deaths::new();
    let (ledger, _) = deaths.next();
    let record = ledger.add_node(&node(2, "a"));
    record.looked_up();
    record.forgotten(2);
    record.moved(7, c"another name");
    die(record);
    let (_ledger, saved) = deaths.next();
    let (found, record) = &saved.nodes[0];
    assert_eq!(found.lookups, 2);
    assert_eq!(found.at, Some((7, c"another name".to_owned())));
    record.lost_name();
    record.forgotten(9);
    die(saved);
    let (_ledger, saved) = deaths.next();
    assert_eq!(saved.nodes[0].0.at, None);
    assert_eq!(saved.nodes[0].0.lookups, 0);
}

#[test]
fn what_goes_leaves_its_units_to_others() {
    let deaths = Deaths::new();
    let (ledger, _) = deaths.next();
    let long = "n".repeat(255);
    for round in 0..50_000 {
        let record = ledger.add_node(&node(round, &long));
        record.moved(1, c"b");
        drop(ledger.add_open(&SavedOpen {
            number: 1,
            inode: round,
            flags: 0,
            directory: false,
        }));
    }
    assert!(ledger.0.len() < 20, "{} units", ledger.0.len());
    drop(ledger);
    let (_ledger, saved) = deaths.next();
    assert!(saved.nodes.is_empty() && saved.open.is_empty());
}

/// Text that was stored for a node that was not to be.
#[test]
fn text_that_nobody_names_is_used_again() {
    let deaths = Deaths::new();
    let (ledger, _) = deaths.next();
    for _ in 0..5 {
        ledger.add_text(&[1; 200]).unwrap();
    }
    die(ledger.add_node(&node(2, "kept")));
    let (ledger, saved) = deaths.next();
    assert_eq!(saved.nodes.len(), 1);
    let end = ledger.0.len();
    let records: Vec<_> = (0..100).map(|id| ledger.add_node(&node(id, "x"))).collect();
    assert_eq!(ledger.0.len(), end);
    drop(records);
    let (_, saved) = deaths.next();
    assert_eq!(saved.nodes[0].0.at, Some((1, c"kept".to_owned())));
}

/// A file that somebody else has written to is taken for what it says, and nothing more happens.
#[test]
fn any_bytes_are_read_without_harm() {
    use std::os::unix::fs::FileExt;
    let deaths = Deaths::new();
    let bytes = lab::pattern(7, 1 << 20);
    let tagged: Vec<u8> = bytes
        .chunks(128)
        .flat_map(|unit| {
            let mut unit = unit.to_vec();
            let tag = u64::from(unit[0] % 4);
            unit[..8].copy_from_slice(&tag.to_le_bytes());
            for link in [8, NAME * 8, HANDLE_TEXT * 8] {
                unit[link + 2..link + 4].fill(0);
                unit[link + 5..link + 8].fill(0);
            }
            unit
        })
        .collect();
    deaths.0.write_all_at(&tagged, 4096).unwrap();
    let (ledger, saved) = deaths.next();
    assert!(saved.nodes.len() > 1000);
    drop(saved);
    drop(ledger.add_node(&node(1, "new")));
}

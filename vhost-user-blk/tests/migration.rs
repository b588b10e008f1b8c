//! The dirty log: a migrating front end learns of every page that the device wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use disk::{ALL, Disk, LOG_ALL};
use lab::frontend::blk::{Blk, status};
use lab::frontend::{FrontEnd, GuestAddress, GuestMemory};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

const PAGE: u64 = 4096;
const MEMORY: usize = 16 << 20;

/// The pages that the log names; reading clears it, as QEMU does.
fn dirty_pages(log: &std::fs::File) -> BTreeSet<u64> {
    let mut bytes = vec![0; MEMORY / 4096 / 8];
    log.read_exact_at(&mut bytes, 0).unwrap();
    log.write_all_at(&vec![0; bytes.len()], 0).unwrap();
    let is_set = |page: &u64| bytes[*page as usize / 8] & 1 << (page % 8) != 0;
    (0..bytes.len() as u64 * 8).filter(is_set).collect()
}

/// The pages whose bytes differ.
fn changed_pages(before: &[u8], after: &[u8]) -> BTreeSet<u64> {
    let pages = before
        .chunks(PAGE as usize)
        .zip(after.chunks(PAGE as usize));
    (0..)
        .zip(pages)
        .filter(|(_, (b, a))| b != a)
        .map(|(page, _)| page)
        .collect()
}

/// A log for `MEMORY` bytes, told to the front end's daemon.
fn log(front_end: &mut FrontEnd) -> std::fs::File {
    let log = std::fs::File::from(memfd_create("log", MemfdFlags::CLOEXEC).unwrap());
    log.set_len((MEMORY / 4096 / 8) as u64).unwrap();
    let region = VhostUserDirtyLogRegion {
        mmap_size: (MEMORY / 4096 / 8) as u64,
        mmap_offset: 0,
        mmap_handle: log.as_raw_fd(),
    };
    front_end
        .request("SET_LOG_BASE", |vhost| vhost.set_log_base(0, Some(region)))
        .unwrap();
    log
}

#[test]
fn every_page_that_changed_is_in_the_log_and_hardly_any_other() {
    let disk = Disk::start("blk-dirty", 8 << 20);
    let memory = GuestMemory::with_size(MEMORY).unwrap();
    let base = memory.regions().unwrap()[0].guest_phys_addr;
    assert_eq!(base, 0, "pages are counted from address 0");
    let mut front_end = disk.front_end(ALL, &memory);
    let mut blk = Blk::new(front_end.set_up_queue(0, 64).unwrap());
    assert_eq!(blk.write(0, &lab::pattern(1, 1 << 20)).unwrap(), status::OK);

    let log = log(&mut front_end);
    assert_eq!(blk.read(0, 65536).unwrap().0, status::OK);
    assert!(
        dirty_pages(&log).is_empty(),
        "logged without being asked to"
    );

    let features = front_end.negotiated().unwrap().features;
    front_end
        .request("SET_FEATURES", |v| v.set_features(features | LOG_ALL))
        .unwrap();
    dirty_pages(&log);
    for (sector, len) in [(0, 65536), (100, 512), (7, 40960)] {
        blk.exchange().use_indirect(len == 512);
        let before = memory.read(GuestAddress(0), MEMORY).unwrap();
        assert_eq!(blk.read(sector, len).unwrap().0, status::OK);
        let after = memory.read(GuestAddress(0), MEMORY).unwrap();
        let (dirty, changed) = (dirty_pages(&log), changed_pages(&before, &after));
        // The driver itself wrote the request and its place in the available ring.
        let ours = blk.queue().addresses();
        let driver_page =
            |page: &&u64| **page != ours.avail.0 / PAGE && **page != ours.desc.0 / PAGE;
        let missing: Vec<&u64> = changed.difference(&dirty).filter(driver_page).collect();
        assert!(dirty.len() as u64 >= len as u64 / PAGE, "{len}: {dirty:?}");
        assert!(
            missing.len() <= 2,
            "{len}: pages {missing:?} changed and are not in the log"
        );
        assert!(
            dirty.len() as u64 <= len as u64 / PAGE + 5,
            "{len}: too many: {dirty:?}"
        );
    }

    front_end
        .request("SET_FEATURES", |v| v.set_features(features))
        .unwrap();
    dirty_pages(&log);
    assert_eq!(blk.read(0, 65536).unwrap().0, status::OK);
    assert!(dirty_pages(&log).is_empty(), "logged after the migration");
}

/// Memory comes and goes while a guest migrates, and the front end sends its log once.
#[test]
fn a_new_memory_table_keeps_the_log() {
    let disk = Disk::start("blk-dirty-table", 8 << 20);
    let beyond = (GuestAddress(1 << 30), MEMORY);
    let half = MEMORY / 2;
    let memory = [
        (GuestAddress(0), half),
        (GuestAddress(half as u64), half),
        beyond,
    ];
    let memory = GuestMemory::new(&memory).unwrap();
    let regions = memory.regions().unwrap();
    let mut front_end = disk.front_end(ALL | LOG_ALL, &memory);
    front_end.set_mem_regions(&memory, &regions[..1]).unwrap();
    let log = log(&mut front_end);
    let mut blk = Blk::new(front_end.set_up_queue(0, 64).unwrap());
    for table in [&regions[..1], &regions[..2], &regions[1..2], &regions[..2]] {
        front_end.set_mem_regions(&memory, table).unwrap();
        if table[0].guest_phys_addr != 0 {
            continue;
        }
        dirty_pages(&log);
        assert_eq!(blk.read(0, 65536).unwrap().0, status::OK);
        let dirty = dirty_pages(&log).len();
        assert!((17..24).contains(&dirty), "{dirty} with {}", table.len());
    }
    assert!(
        front_end.set_mem_regions(&memory, &regions).is_err(),
        "the log has no place for the last region's pages"
    );
    drop((front_end, blk));
    disk.assert_serves();
}

#[test]
fn a_dirty_log_that_is_cut_short_is_the_front_ends_loss_alone() {
    let mut disk = Disk::start("blk-dirty-cut", 8 << 20);
    let memory = GuestMemory::with_size(MEMORY).unwrap();
    let mut front_end = disk.front_end(ALL | LOG_ALL, &memory);
    let log = log(&mut front_end);
    let mut blk = Blk::new(front_end.set_up_queue(0, 64).unwrap());
    assert_eq!(blk.read(0, 65536).unwrap().0, status::OK);
    assert!(!dirty_pages(&log).is_empty(), "nothing is logged");
    log.set_len(0).unwrap();
    assert_eq!(blk.read(0, 65536).unwrap().0, status::OK);
    assert!(disk.daemon.is_running());
    drop((front_end, blk));
    disk.assert_serves();
}

//! Requests of a well-behaved driver, over the real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::os::unix::fs::MetadataExt;

use disk::{ALL, Disk};
use lab::frontend::blk::{Data, Range, UNMAP, status};
use lab::frontend::features;

const EVENT_IDX_OFF: u64 = ALL & !features::EVENT_IDX;

#[test]
fn what_is_written_is_read_back_and_in_the_image() {
    let disk = Disk::start("blk-readback", 8 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    for (sector, len) in [(0, 512), (1, 4096), (100, 65536), (2000, 1 << 20)] {
        let bytes = lab::pattern(sector, len);
        assert_eq!(blk.write(sector, &bytes).unwrap(), status::OK);
        assert_eq!(blk.read(sector, len).unwrap(), (status::OK, bytes.clone()));
        assert_eq!(blk.flush().unwrap(), status::OK);
        let image = std::fs::read(&disk.image).unwrap();
        let at = usize::try_from(sector).unwrap() * 512;
        assert!(
            image[at..at + len] == bytes,
            "image differs at sector {sector}"
        );
    }
}

#[test]
fn any_framing_is_understood() {
    let disk = Disk::start("blk-framing", 8 << 20);
    for wanted in [ALL, EVENT_IDX_OFF] {
        let (_front_end, mut blk) = disk.driver(wanted);
        for (segment, indirect) in [(512, false), (1000, true), (4096, false), (4096, true)] {
            blk.set_segment_len(segment);
            blk.exchange().use_indirect(indirect);
            let bytes = lab::pattern(segment as u64, 32768);
            assert_eq!(blk.write(64, &bytes).unwrap(), status::OK);
            assert_eq!(blk.read(64, bytes.len()).unwrap(), (status::OK, bytes));
        }
    }
}

#[test]
fn many_requests_in_flight_complete_each_with_its_own_data() {
    let disk = Disk::start("blk-many", 32 << 20);
    for wanted in [ALL, EVENT_IDX_OFF] {
        let (_front_end, mut blk) = disk.driver(wanted);
        for round in 0..20 {
            let mut tickets = Vec::new();
            for n in 0..40_u64 {
                let bytes = lab::pattern(round * 100 + n, 4096);
                let ticket =
                    blk.stage(lab::frontend::blk::kind::OUT, n * 8, Data::ToDevice(&bytes));
                tickets.push(ticket.unwrap());
            }
            blk.kick().unwrap();
            for ticket in tickets.drain(..) {
                assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
            }
            for n in 0..40_u64 {
                let ticket =
                    blk.submit(lab::frontend::blk::kind::IN, n * 8, Data::FromDevice(4096));
                tickets.push(ticket.unwrap());
            }
            for (n, ticket) in (0..).zip(tickets) {
                let (status, data) = blk.wait(ticket).unwrap();
                assert_eq!(status, status::OK);
                assert!(
                    data == lab::pattern(round * 100 + n, 4096),
                    "round {round}, block {n}"
                );
            }
        }
    }
}

#[test]
fn a_batch_is_answered_with_few_interrupts() {
    let disk = Disk::start("blk-batch", 8 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    let mut tickets = Vec::new();
    for n in 0..40_u64 {
        tickets.push(
            blk.stage(lab::frontend::blk::kind::IN, n, Data::FromDevice(512))
                .unwrap(),
        );
    }
    blk.kick().unwrap();
    for ticket in tickets {
        assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
    }
    let interrupts = blk.queue_mut().interrupts().unwrap();
    assert!(
        (1..=20).contains(&interrupts),
        "{interrupts} interrupts for 40 requests"
    );
}

#[test]
fn discard_and_write_zeroes_read_back_as_zeroes_and_free_space() {
    let disk = Disk::start("blk-discard", 8 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    let bytes = lab::pattern(7, 1 << 20);
    assert_eq!(blk.write(0, &bytes).unwrap(), status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);
    let before = std::fs::metadata(&disk.image).unwrap().blocks();

    let ranges = [
        Range {
            sector: 0,
            sectors: 512,
            flags: 0,
        },
        Range {
            sector: 1024,
            sectors: 512,
            flags: 0,
        },
    ];
    assert_eq!(blk.discard(&ranges).unwrap(), status::OK);
    let zeroed = [Range {
        sector: 512,
        sectors: 8,
        flags: 0,
    }];
    assert_eq!(blk.write_zeroes(&zeroed).unwrap(), status::OK);
    let unmapped = [Range {
        sector: 1600,
        sectors: 8,
        flags: UNMAP,
    }];
    assert_eq!(blk.write_zeroes(&unmapped).unwrap(), status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);

    let mut expected = bytes;
    for range in ranges.iter().chain(&zeroed).chain(&unmapped) {
        let from = usize::try_from(range.sector).unwrap() * 512;
        expected[from..from + range.sectors as usize * 512].fill(0);
    }
    assert!(blk.read(0, 1 << 20).unwrap() == (status::OK, expected));
    let after = std::fs::metadata(&disk.image).unwrap().blocks();
    assert!(
        after + 900 < before,
        "discard freed nothing: {before} blocks, then {after}"
    );
}

#[test]
fn the_serial_comes_padded_to_twenty_bytes() {
    let disk = Disk::start_with("blk-serial", 1 << 20, |d| {
        d.args(["--serial", "ringside-7"])
    });
    let (_front_end, mut blk) = disk.driver(ALL);
    let (status, id) = blk.get_id().unwrap();
    assert_eq!(status, status::OK);
    assert_eq!(id, *b"ringside-7\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_read_only_disk_refuses_to_change() {
    let disk = Disk::start_with("blk-readonly", 1 << 20, |d| d.arg("--read-only"));
    let (front_end, mut blk) = disk.driver(ALL);
    let offered = front_end.negotiated().unwrap().offered;
    assert_ne!(offered & 1 << 5, 0, "VIRTIO_BLK_F_RO is offered");
    assert_eq!(blk.write(0, &[1; 512]).unwrap(), status::IOERR);
    assert_eq!(blk.read(0, 512).unwrap(), (status::OK, vec![0; 512]));
    assert_eq!(blk.flush().unwrap(), status::OK);
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_queue_goes_on() {
    use lab::frontend::blk::kind;
    let disk = Disk::start("blk-refuse", 1 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    let beyond = (1 << 20) / 512;
    assert_eq!(blk.write(beyond, &[0; 512]).unwrap(), status::IOERR);
    assert_eq!(blk.write(beyond - 1, &[0; 1024]).unwrap(), status::IOERR);
    assert_eq!(blk.read(u64::MAX, 512).unwrap().0, status::IOERR);
    assert_eq!(blk.read(0, 100).unwrap().0, status::IOERR);
    assert_eq!(
        blk.request(kind::IN, 0, Data::None).unwrap().0,
        status::IOERR
    );
    assert_eq!(blk.request(77, 0, Data::None).unwrap().0, status::UNSUPP);
    assert_eq!(
        blk.request(14, 0, Data::None).unwrap().0,
        status::UNSUPP,
        "secure erase"
    );
    assert_eq!(
        blk.request(kind::DISCARD, 0, Data::ToDevice(&[0; 15]))
            .unwrap()
            .0,
        status::UNSUPP
    );
    let flagged = [Range {
        sector: 0,
        sectors: 8,
        flags: 2,
    }];
    assert_eq!(blk.discard(&flagged).unwrap(), status::UNSUPP);
    assert_eq!(
        blk.discard(&[Range {
            sector: 0,
            sectors: 8,
            flags: 1
        }])
        .unwrap(),
        status::UNSUPP
    );
    let outside = [Range {
        sector: beyond - 1,
        sectors: 2,
        flags: 0,
    }];
    assert_eq!(blk.discard(&outside).unwrap(), status::IOERR);
    assert_eq!(blk.read(0, 512).unwrap(), (status::OK, vec![0; 512]));
}

#[test]
fn the_write_cache_can_be_switched_while_running() {
    let disk = Disk::start("blk-wce", 1 << 20);
    let (mut front_end, mut blk) = disk.driver(ALL);
    assert_eq!(front_end.get_config(32, 1).unwrap(), [1]);
    front_end.set_config(32, &[0]).unwrap();
    assert_eq!(front_end.get_config(32, 1).unwrap(), [0]);
    assert_eq!(blk.write(0, &[9; 512]).unwrap(), status::OK);
    front_end.set_config(32, &[1]).unwrap();
    assert_eq!(blk.write(1, &[9; 512]).unwrap(), status::OK);
}

#[test]
fn several_queues_work_at_the_same_time() {
    let disk = Disk::start("blk-queues", 16 << 20);
    let memory = lab::frontend::GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    assert_eq!(front_end.get_config(34, 2).unwrap(), [4, 0]);
    let queues: Vec<_> = (0..4)
        .map(|n| front_end.set_up_queue(n, 64).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for (n, queue) in (0..).zip(queues) {
            scope.spawn(move || {
                let mut blk = lab::frontend::blk::Blk::new(queue);
                for round in 0..200_u64 {
                    let (sector, bytes) =
                        (n * 8192 + round * 8, lab::pattern(n * 1000 + round, 4096));
                    assert_eq!(blk.write(sector, &bytes).unwrap(), status::OK);
                    assert_eq!(blk.read(sector, 4096).unwrap(), (status::OK, bytes));
                }
            });
        }
    });
}

#[test]
fn a_truncated_image_gives_an_error_and_the_disk_goes_on() {
    let disk = Disk::start("blk-truncated", 8 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    std::fs::File::options()
        .write(true)
        .open(&disk.image)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    assert_eq!(blk.read(4096, 4096).unwrap().0, status::IOERR);
    assert_eq!(blk.read(0, 4096).unwrap().0, status::OK);
    assert!(
        disk.daemon
            .stderr()
            .contains("the image ends before its capacity")
    );
}

#[test]
fn the_metrics_socket_tells_what_was_done() {
    let disk = Disk::start("blk-metrics", 1 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    for _ in 0..3 {
        assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
    }
    let text = disk.metrics();
    let has = |line: &str| assert!(text.contains(line), "no '{line}' in:\n{text}");
    has("ringside_block_operations_total{disk=\"disk.img\",queue=\"0\",op=\"write\"} 3\n");
    has("ringside_requests_total{disk=\"disk.img\",queue=\"0\"} 3\n");
    has("ringside_bytes_out_total{disk=\"disk.img\",queue=\"0\"} 12288\n");
    has("ringside_request_seconds_count{disk=\"disk.img\",queue=\"0\"} 3\n");
}

#[test]
fn the_write_cache_stays_off_when_features_are_acknowledged_again() {
    let disk = Disk::start("blk-wce-again", 1 << 20);
    let (mut front_end, mut blk) = disk.driver(ALL);
    front_end.set_config(32, &[0]).unwrap();
    let features = front_end.negotiated().unwrap().features;
    front_end
        .request("SET_FEATURES", |vhost| {
            vhost::VhostBackend::set_features(vhost, features)
        })
        .unwrap();
    assert_eq!(front_end.get_config(32, 1).unwrap(), [0]);
    assert_eq!(blk.write(0, &[9; 512]).unwrap(), status::OK);
}

#[test]
fn a_disk_without_discard_does_not_serve_it() {
    let disk = Disk::start_with("blk-no-discard", 1 << 20, |d| d.args(["--discard", "off"]));
    let (front_end, mut blk) = disk.driver(ALL);
    assert_eq!(
        front_end.negotiated().unwrap().offered & 1 << 13,
        0,
        "VIRTIO_BLK_F_DISCARD"
    );
    let range = [Range {
        sector: 0,
        sectors: 8,
        flags: 0,
    }];
    assert_eq!(blk.discard(&range).unwrap(), status::UNSUPP);
    assert_eq!(blk.write(0, &[7; 4096]).unwrap(), status::OK);
    assert_eq!(blk.write_zeroes(&range).unwrap(), status::OK);
    assert_eq!(blk.read(0, 4096).unwrap(), (status::OK, vec![0; 4096]));
}

#[test]
fn direct_io_serves_buffers_at_any_address() {
    let disk = Disk::start_with("blk-direct", 8 << 20, |d| d.arg("--direct"));
    let (_front_end, mut blk) = disk.driver(ALL);
    for segment in [usize::MAX, 4096, 512, 1000, 100, 4097] {
        // The driver's allocator gives odd lengths odd addresses.
        blk.set_segment_len(segment);
        for len in [512, 4096, 12288] {
            let bytes = lab::pattern((segment % 7919 + len) as u64, len);
            assert_eq!(
                blk.write(8, &bytes).unwrap(),
                status::OK,
                "{len} in parts of {segment}"
            );
            assert!(
                blk.read(8, len).unwrap() == (status::OK, bytes),
                "{len} by {segment}"
            );
        }
    }
    assert_eq!(blk.flush().unwrap(), status::OK);
}

#[test]
fn an_image_in_memory_is_served_without_the_kernels_threads() {
    let disk = Disk::start_in_memory("blk-tmpfs", 4 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    let bytes = lab::pattern(3, 65536);
    assert_eq!(blk.write(16, &bytes).unwrap(), status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);
    let zeroed = [Range {
        sector: 16,
        sectors: 8,
        flags: 0,
    }];
    assert_eq!(
        blk.write_zeroes(&zeroed).unwrap(),
        status::OK,
        "tmpfs has no ZERO_RANGE"
    );
    let expected = [vec![0; 4096], bytes[4096..].to_vec()].concat();
    assert!(blk.read(16, 65536).unwrap() == (status::OK, expected));
}

#[test]
fn the_null_disk_takes_everything() {
    let disk = Disk::start_null("blk-null", 1 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
    assert_eq!(blk.read(0, 4096).unwrap().0, status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);
    assert_eq!(
        blk.read(2048, 512).unwrap().0,
        status::IOERR,
        "beyond the end"
    );
}

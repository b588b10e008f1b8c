//! libblkio's virtio-blk-vhost-user driver, a front end that none of us wrote, at native speed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]
#![allow(
    unsafe_code,
    reason = "libblkio's requests name memory by raw pointers"
)]

mod disk;

use std::mem::MaybeUninit;

use blkio::{Blkio, Blkioq, Completion, MemoryRegion, ReqFlags};
use disk::Disk;

const BLOCK: usize = 4096;
const BLOCKS: usize = 256;

struct Connection {
    _blkio: Blkio,
    queues: Vec<Blkioq>,
    region: MemoryRegion,
}

fn connect(disk: &Disk, queues: i32, poll_queues: i32) -> Connection {
    let mut blkio = Blkio::new("virtio-blk-vhost-user").unwrap();
    blkio
        .set_str("path", disk.socket.to_str().unwrap())
        .unwrap();
    blkio.connect().unwrap();
    assert_eq!(blkio.get_u64("capacity").unwrap(), 16 << 20);
    blkio.set_i32("num-queues", queues).unwrap();
    blkio.set_i32("num-poll-queues", poll_queues).unwrap();
    let mut started = blkio.start().unwrap();
    let region = blkio.alloc_mem_region(BLOCK * BLOCKS).unwrap();
    blkio.map_mem_region(&region).unwrap();
    started.queues.append(&mut started.poll_queues);
    Connection {
        _blkio: blkio,
        queues: started.queues,
        region,
    }
}

impl Connection {
    fn buffer(&self, block: usize) -> *mut u8 {
        (self.region.addr as *mut u8).wrapping_add(block * BLOCK)
    }

    fn finish(&mut self, queue: usize, count: usize) {
        let mut done = 0;
        while done < count {
            let mut completions: [MaybeUninit<Completion>; 32] =
                [const { MaybeUninit::uninit() }; 32];
            let new = self.queues[queue]
                .do_io(&mut completions, 1, None, None)
                .unwrap();
            for completion in completions.iter().take(new) {
                // SAFETY: do_io filled the first `new` entries.
                let completion = unsafe { completion.assume_init_ref() };
                assert_eq!(completion.ret, 0, "request {}", completion.user_data);
            }
            done += new;
        }
    }
}

fn write_then_read(disk: &Disk, connection: &mut Connection, queue: usize) {
    for batch in (0..BLOCKS).step_by(32) {
        for block in batch..batch + 32 {
            let bytes = lab::pattern((queue * BLOCKS + block) as u64, BLOCK);
            let buffer = connection.buffer(block);
            // SAFETY: the block is inside the region, and no request uses it now.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, BLOCK) };
            let offset = (block * BLOCK) as u64;
            connection.queues[queue].write(offset, buffer, BLOCK, block, ReqFlags::empty());
        }
        connection.finish(queue, 32);
    }
    connection.queues[queue].flush(0, ReqFlags::empty());
    connection.finish(queue, 1);
    let image = std::fs::read(&disk.image).unwrap();
    for block in 0..BLOCKS {
        let expected = lab::pattern((queue * BLOCKS + block) as u64, BLOCK);
        assert!(
            image[block * BLOCK..][..BLOCK] == expected,
            "block {block} in the image"
        );
    }
    for batch in (0..BLOCKS).step_by(32) {
        for block in batch..batch + 32 {
            // SAFETY: as above.
            unsafe { std::ptr::write_bytes(connection.buffer(block), 0, BLOCK) };
            let (offset, buffer) = ((block * BLOCK) as u64, connection.buffer(block));
            connection.queues[queue].read(offset, buffer, BLOCK, block, ReqFlags::empty());
        }
        connection.finish(queue, 32);
        for block in batch..batch + 32 {
            // SAFETY: the requests on the block are done.
            let got = unsafe { std::slice::from_raw_parts(connection.buffer(block), BLOCK) };
            assert!(
                got == lab::pattern((queue * BLOCKS + block) as u64, BLOCK),
                "block {block} read"
            );
        }
    }
}

#[test]
fn blkio_reads_what_it_wrote_with_interrupts() {
    let disk = Disk::start("blk-blkio", 16 << 20);
    let mut connection = connect(&disk, 2, 0);
    write_then_read(&disk, &mut connection, 0);
    write_then_read(&disk, &mut connection, 1);
}

#[test]
fn blkio_reads_what_it_wrote_while_polling() {
    let disk = Disk::start("blk-blkio-poll", 16 << 20);
    let mut connection = connect(&disk, 0, 1);
    write_then_read(&disk, &mut connection, 0);
}

#[test]
fn blkio_discards_and_writes_zeroes() {
    let disk = Disk::start("blk-blkio-zero", 16 << 20);
    let mut connection = connect(&disk, 1, 0);
    write_then_read(&disk, &mut connection, 0);
    connection.queues[0].discard(0, 65536, 1, ReqFlags::empty());
    connection.queues[0].write_zeroes(131_072, 65536, 2, ReqFlags::empty());
    connection.finish(0, 2);
    let image = std::fs::read(&disk.image).unwrap();
    assert!(image[..65536].iter().all(|byte| *byte == 0));
    assert!(image[131_072..196_608].iter().all(|byte| *byte == 0));
    assert!(image[65536..131_072].iter().any(|byte| *byte != 0));
}

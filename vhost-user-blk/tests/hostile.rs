//! Guests and front ends that break the rules: one clear answer, and the daemon lives on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use disk::{ALL, Disk, SOON};
use lab::frontend::blk::{Blk, Data, header, kind, status};
use lab::frontend::garbage::{self, Reaction, request};
use lab::frontend::{
    Descriptor, DriverQueue, FrontEnd, GuestAddress, GuestMemory, Result, descriptor_flags as flag,
};
use vhost::{VhostBackend, VringConfigData};

const MOMENT: Duration = Duration::from_millis(500);

/// What a hostile guest does to a queue; the buffer holds a sound request header.
type Attack = fn(&mut DriverQueue, GuestAddress) -> Result<()>;

fn descriptor(addr: GuestAddress, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        addr: addr.0,
        len,
        flags,
        next,
    }
}

fn one(queue: &mut DriverQueue, chain: &[Descriptor]) -> Result<()> {
    queue.submit_raw(0, chain)
}

/// Broken chains: each is given back with length 0, the queue goes on.
const BAD_CHAINS: [(&str, Attack); 12] = [
    ("loop", |q, b| q.submit_loop(b, 4)),
    ("next out of range", |q, b| q.submit_next_out_of_range(b)),
    ("nested indirect table", |q, b| q.submit_nested_indirect(b)),
    ("indirect table of odd length", |q, b| {
        q.submit_indirect_bad_len(b)
    }),
    ("indirect table of no entries", |q, b| {
        one(q, &[descriptor(b, 0, flag::INDIRECT, 0)])
    }),
    ("indirect table outside memory", |q, _| {
        one(
            q,
            &[descriptor(GuestAddress(1 << 50), 32, flag::INDIRECT, 0)],
        )
    }),
    ("zero length", |q, b| one(q, &[descriptor(b, 0, 0, 0)])),
    ("outside memory", |q, _| {
        one(q, &[descriptor(GuestAddress(1 << 50), 16, 0, 0)])
    }),
    ("address overflow", |q, _| {
        one(q, &[descriptor(GuestAddress(u64::MAX - 8), 16, 0, 0)])
    }),
    ("longer than memory", |q, b| {
        one(q, &[descriptor(b, u32::MAX, 0, 0)])
    }),
    ("readable after writable", |q, b| {
        one(
            q,
            &[
                descriptor(b, 16, flag::NEXT | flag::WRITE, 1),
                descriptor(b, 16, 0, 0),
            ],
        )
    }),
    ("no room for the status", |q, b| {
        one(q, &[descriptor(b, 16, 0, 0)])
    }),
];

/// Broken rings: the queue stops until it is set up again.
const BAD_RINGS: [(&str, Attack); 3] = [
    ("available index overruns", |q, _| q.overflow_avail()),
    ("head out of range", |q, _| {
        let (size, position) = (q.size(), q.avail_idx());
        q.write_avail_entry(position % size, size)?;
        q.write_avail_idx(position.wrapping_add(1))?;
        q.kick_always()
    }),
    ("head made available twice", |q, b| {
        let status = GuestAddress(b.0 + 64);
        let data = GuestAddress(b.0 + 4096);
        q.write_descriptor(0, descriptor(b, 16, flag::NEXT, 1))?;
        q.write_descriptor(1, descriptor(data, 1 << 20, flag::NEXT | flag::WRITE, 2))?;
        q.write_descriptor(2, descriptor(status, 1, flag::WRITE, 0))?;
        let position = q.avail_idx();
        for n in 0..32 {
            q.write_avail_entry(position.wrapping_add(n) % q.size(), 0)?;
        }
        q.write_avail_idx(position.wrapping_add(32))?;
        q.kick_always()
    }),
];

fn attacked(disk: &Disk, attack: Attack) -> (FrontEnd, DriverQueue, Blk) {
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut victim = front_end.set_up_queue(0, 64).unwrap();
    let other = Blk::new(front_end.set_up_queue(1, 64).unwrap());
    let buffer = memory.alloc(2 << 20, 4096).unwrap();
    memory.write(buffer, &header(kind::IN, 0)).unwrap();
    attack(&mut victim, buffer).unwrap();
    (front_end, victim, other)
}

#[test]
fn broken_chains_are_given_back_and_the_queue_goes_on() {
    let mut disk = Disk::start("blk-chains", 8 << 20);
    for (name, attack) in BAD_CHAINS {
        let (_front_end, mut victim, mut other) = attacked(&disk, attack);
        assert!(victim.any_used(SOON).unwrap(), "{name}: no answer");
        assert_eq!(
            other.read(0, 512).unwrap().0,
            status::OK,
            "{name}: the other queue"
        );
        // The same queue serves a sound request.
        let (memory, status_at) = (victim.memory().clone(), 4096);
        let at = memory.alloc(8192, 4096).unwrap();
        memory.write(at, &header(kind::FLUSH, 0)).unwrap();
        memory
            .write(GuestAddress(at.0 + status_at), &[0xff])
            .unwrap();
        let answer = GuestAddress(at.0 + status_at);
        let chain = [
            descriptor(at, 16, flag::NEXT, 11),
            descriptor(answer, 1, flag::WRITE, 0),
        ];
        victim.submit_raw(10, &chain).unwrap();
        let deadline = std::time::Instant::now() + SOON;
        let mut byte = [0xff];
        while byte == [0xff] && std::time::Instant::now() < deadline {
            memory.read_into(answer, &mut byte).unwrap();
        }
        assert_eq!(byte, [status::OK], "{name}: the queue does not go on");
    }
    assert!(disk.daemon.is_running());
    disk.assert_serves();
    assert!(disk.daemon.stderr().contains("the guest broke a rule"));
    assert!(
        !disk.daemon.stderr().contains("panicked"),
        "{}",
        disk.daemon.stderr()
    );
}

#[test]
fn broken_rings_stop_their_queue_alone() {
    let mut disk = Disk::start("blk-rings", 8 << 20);
    let mut seen = 0;
    for (name, attack) in BAD_RINGS {
        let (mut front_end, _victim, mut other) = attacked(&disk, attack);
        seen += 1;
        disk.wait_metric("guest_faults_total{disk=\"disk.img\",queue=\"0\"}", seen);
        assert_eq!(
            other.read(0, 512).unwrap().0,
            status::OK,
            "{name}: the other queue"
        );
        // Stopping it and setting it up again brings it back.
        front_end.stop_queue(0).unwrap();
        let queue = front_end.lay_out_queue(0, 64).unwrap();
        front_end.attach_queue(&queue, 0).unwrap();
        assert_eq!(
            Blk::new(queue).read(0, 512).unwrap().0,
            status::OK,
            "{name}: set up again"
        );
    }
    assert!(disk.daemon.is_running());
    disk.assert_serves();
    assert!(
        !disk.daemon.stderr().contains("panicked"),
        "{}",
        disk.daemon.stderr()
    );
}

#[test]
fn a_guest_cannot_flood_the_log() {
    let disk = Disk::start("blk-flood", 1 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    for _ in 0..2000 {
        assert_eq!(blk.request(77, 0, Data::None).unwrap().0, status::UNSUPP);
    }
    let lines = disk.daemon.stderr().lines().count();
    assert!(lines < 40, "{lines} log lines");
}

#[test]
fn garbage_on_the_socket_ends_the_connection_and_nothing_else() {
    let mut disk = Disk::start("blk-garbage", 1 << 20);
    let socket = disk.socket.clone();
    for seed in 0..16 {
        garbage::random(&socket, seed, 300, MOMENT).unwrap();
        disk.assert_serves();
    }
    let reactions = [
        (
            "wrong version",
            garbage::wrong_version(&socket, MOMENT).unwrap(),
        ),
        (
            "unknown request",
            garbage::unknown_request(&socket, MOMENT).unwrap(),
        ),
        ("huge size", garbage::huge_size(&socket, MOMENT).unwrap()),
        (
            "missing descriptors",
            garbage::missing_fds(&socket, MOMENT).unwrap(),
        ),
        (
            "surplus descriptors",
            garbage::surplus_fds(&socket, 8, MOMENT).unwrap(),
        ),
    ];
    garbage::partial_then_close(&socket, MOMENT).unwrap();
    for (name, reaction) in reactions {
        assert!(
            !matches!(reaction, Reaction::Answered(_)),
            "{name}: {reaction:?}"
        );
    }
    assert!(matches!(
        garbage::alive(&socket, SOON).unwrap(),
        Reaction::Answered(_)
    ));
    assert!(disk.daemon.is_running());
    assert!(
        !disk.daemon.stderr().contains("panicked"),
        "{}",
        disk.daemon.stderr()
    );
    disk.assert_serves();
}

#[test]
fn a_front_end_that_goes_mid_request_is_followed_by_the_next() {
    let disk = Disk::start("blk-vanish", 32 << 20);
    for round in 0..20 {
        let (front_end, mut blk) = disk.driver(ALL);
        for n in 0..32_u64 {
            let bytes = lab::pattern(n, 256 << 10);
            blk.stage(kind::OUT, n * 512, Data::ToDevice(&bytes))
                .unwrap();
        }
        blk.kick().unwrap();
        if round % 2 == 0 {
            (&mut front_end.stream()).write_all(&[1, 2, 3]).unwrap();
        }
        drop((front_end, blk));
    }
    disk.assert_serves();
}

#[test]
fn a_front_end_that_leaves_its_own_end_with_the_daemon_is_followed_by_the_next() {
    let disk = Disk::start("blk-own-end", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    for request in [request::SET_VRING_KICK, request::SET_VRING_CALL] {
        let front_end = disk.front_end(ALL, &memory);
        hand_over(&front_end, request, front_end.stream());
        drop(front_end);
        disk.assert_serves();
    }
    // It waits in another socket.
    let front_end = disk.front_end(ALL, &memory);
    let (ours, theirs) = UnixStream::pair().unwrap();
    garbage::send_with_fds(&ours, &[0], &[front_end.stream().as_fd()]).unwrap();
    hand_over(&front_end, request::SET_VRING_CALL, &theirs);
    drop((front_end, ours, theirs));
    disk.assert_serves();
    // It came with the beginning of a message.
    let front_end = disk.front_end(ALL, &memory);
    garbage::send_with_fds(front_end.stream(), &[0], &[front_end.stream().as_fd()]).unwrap();
    drop(front_end);
    disk.assert_serves();
}

#[test]
fn too_little_memory_is_a_guest_fault_not_a_crash() {
    let mut disk = Disk::start("blk-little", 1 << 20);
    let memory = GuestMemory::with_size(4 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut regions = memory.regions().unwrap();
    regions[0].memory_size = 4096;
    // Rings outside of what is shared: setting them up is refused, or the queue never starts.
    let refused = front_end
        .set_mem_regions(&memory, &regions)
        .and_then(|()| front_end.set_up_queue(0, 64))
        .map(Blk::new)
        .and_then(|mut blk| {
            blk.exchange().set_timeout(MOMENT);
            blk.read(0, 512)
        });
    assert!(refused.is_err(), "a ring outside memory was served");
    drop(front_end);
    assert!(disk.daemon.is_running());
    disk.assert_serves();
}

#[test]
fn memory_behind_the_end_of_its_file_does_not_kill_the_daemon() {
    // The front end shares a region that is longer than the memfd behind it.
    let mut disk = Disk::start("blk-short-memfd", 1 << 20);
    let memory = GuestMemory::with_size(4 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut regions = memory.regions().unwrap();
    regions[0].memory_size *= 4;
    let result = front_end.set_mem_regions(&memory, &regions);
    assert!(
        result.is_err(),
        "a region longer than its file was accepted"
    );
    drop(front_end);
    assert!(disk.daemon.is_running());
    disk.assert_serves();
}

/// The daemon neither spins nor floods its log for half a second, and serves the next connection.
fn assert_calm(disk: &mut Disk) {
    std::thread::sleep(Duration::from_millis(100));
    let (ticks, lines) = (
        disk.daemon.cpu_ticks().unwrap(),
        disk.daemon.stderr().lines().count(),
    );
    std::thread::sleep(MOMENT);
    assert!(
        disk.daemon.cpu_ticks().unwrap() - ticks < 20,
        "the daemon spins"
    );
    assert!(
        disk.daemon.stderr().lines().count() < lines + 10,
        "the daemon floods its log"
    );
    assert!(disk.daemon.is_running());
}

#[test]
fn a_ring_that_cannot_run_is_refused_once_and_calmly() {
    let mut disk = Disk::start("blk-refused", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let queue = front_end.lay_out_queue(0, 64).unwrap();
    front_end.attach_queue(&queue, 0).unwrap();
    front_end
        .request("SET_VRING_NUM", |vhost| vhost.set_vring_num(0, 100))
        .unwrap();
    queue.kick_always().unwrap();
    assert_calm(&mut disk);
    assert!(
        disk.daemon
            .stderr()
            .contains("queue size that is no power of two")
    );
    // Put right, it runs.
    front_end.attach_queue(&queue, 0).unwrap();
    assert_eq!(Blk::new(queue).read(0, 512).unwrap().0, status::OK);
}

#[test]
fn a_ring_without_addresses_is_not_served() {
    let mut disk = Disk::start("blk-no-addresses", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let before = memory.checksum_all().unwrap();
    let event = lab::Event::new().unwrap();
    front_end
        .request("SET_VRING_KICK", |v| v.set_vring_kick(0, event.eventfd()))
        .unwrap();
    front_end.enable_queue(0, true).unwrap();
    event.signal().unwrap();
    assert_calm(&mut disk);
    assert_eq!(
        memory.checksum_all().unwrap(),
        before,
        "guest memory was written"
    );
    drop(front_end);
    disk.assert_serves();
}

/// A message with a descriptor for queue 0 that asks for no answer.
fn hand_over(front_end: &FrontEnd, request: u32, descriptor: impl AsFd) {
    let bytes = garbage::message(request, 1, 8, &0_u64.to_le_bytes());
    garbage::send_with_fds(front_end.stream(), &bytes, &[descriptor.as_fd()]).unwrap();
}

#[test]
fn a_kick_that_nobody_can_wait_for_stops_its_queue_calmly() {
    let mut disk = Disk::start("blk-zero-kick", 1 << 20);
    let (mut front_end, blk) = disk.driver(ALL);
    hand_over(
        &front_end,
        request::SET_VRING_KICK,
        File::open("/dev/zero").unwrap(),
    );
    assert_calm(&mut disk);
    assert!(disk.daemon.stderr().contains("queue stopped"));
    drop(blk);
    // Put right, it runs.
    front_end.stop_queue(0).unwrap();
    let queue = front_end.lay_out_queue(0, 64).unwrap();
    front_end.attach_queue(&queue, 0).unwrap();
    assert_eq!(Blk::new(queue).read(0, 512).unwrap().0, status::OK);
}

#[test]
fn a_kick_that_is_never_full_does_not_hold_the_daemon() {
    let mut disk = Disk::start("blk-short-kick", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let front_end = disk.front_end(ALL, &memory);
    let (kick, mut writer) = std::io::pipe().unwrap();
    // The daemon itself keeps the pipe from coming to its end.
    hand_over(&front_end, request::SET_VRING_CALL, &writer);
    hand_over(&front_end, request::SET_VRING_KICK, &kick);
    writer.write_all(&[1]).unwrap();
    let event = lab::Event::new().unwrap();
    hand_over(&front_end, request::SET_VRING_KICK, &event);
    drop((front_end, kick, writer));
    disk.assert_serves();
    assert!(disk.daemon.terminate(SOON).unwrap().status.success());
}

#[test]
fn a_kick_at_its_end_is_not_looked_at_again_and_again() {
    let mut disk = Disk::start("blk-ended-kick", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let (kick, writer) = std::io::pipe().unwrap();
    hand_over(&front_end, request::SET_VRING_KICK, &kick);
    front_end.enable_queue(0, true).unwrap();
    drop(writer);
    assert_calm(&mut disk);
    // Nor one that was replaced.
    let (old, new) = (lab::Event::new().unwrap(), lab::Event::new().unwrap());
    for event in [&old, &new] {
        hand_over(&front_end, request::SET_VRING_KICK, event);
    }
    front_end.get_config(0, 8).unwrap();
    old.signal().unwrap();
    assert_calm(&mut disk);
    drop(front_end);
    disk.assert_serves();
}

#[test]
fn a_ring_whose_addresses_come_last_is_served() {
    let disk = Disk::start("blk-late-addresses", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let event = lab::Event::new().unwrap();
    let queue = front_end.lay_out_queue(0, 64).unwrap();
    let at = queue.addresses();
    let addresses = VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: 0,
        desc_table_addr: memory.user_address(at.desc).unwrap(),
        used_ring_addr: memory.user_address(at.used).unwrap(),
        avail_ring_addr: memory.user_address(at.avail).unwrap(),
        log_addr: None,
    };
    front_end
        .request("SET_VRING_NUM", |v| v.set_vring_num(0, 64))
        .unwrap();
    front_end
        .request("SET_VRING_KICK", |v| v.set_vring_kick(0, event.eventfd()))
        .unwrap();
    front_end.enable_queue(0, true).unwrap();
    front_end
        .request("SET_VRING_ADDR", |v| v.set_vring_addr(0, &addresses))
        .unwrap();
    let mut blk = Blk::new(queue);
    blk.submit(kind::FLUSH, 0, Data::None).unwrap();
    event.signal().unwrap();
    let deadline = std::time::Instant::now() + SOON;
    while blk.queue().used_idx().unwrap() == 0 {
        assert!(std::time::Instant::now() < deadline, "the ring rests");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_endless_stream_of_broken_chains_does_not_hold_up_the_stop() {
    let disk = Disk::start("blk-stream", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut queue = front_end.set_up_queue(0, 64).unwrap();
    let buffer = memory.alloc(64, 16).unwrap();
    queue.submit_loop(buffer, 64).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Another CPU of the guest: more of them as fast as the device takes them.
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let room = queue.used_idx().unwrap().wrapping_add(32);
                queue.write_avail_idx(room).unwrap();
                queue.kick_always().unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        let started = std::time::Instant::now();
        front_end.stop_queue(0).unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "the stop took {:?}",
            started.elapsed()
        );
    });
}

#[test]
fn a_full_call_descriptor_blocks_nothing() {
    let mut disk = Disk::start("blk-full-call", 1 << 20);
    let (mut front_end, mut blk) = disk.driver(ALL & !lab::frontend::features::EVENT_IDX);
    let event = lab::Event::full_and_blocking().unwrap();
    front_end
        .request("SET_VRING_CALL", |v| v.set_vring_call(0, event.eventfd()))
        .unwrap();
    blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
    std::thread::sleep(MOMENT);
    assert_eq!(
        blk.queue().pending().unwrap(),
        1,
        "the queue's thread is stuck"
    );
    assert_eq!(front_end.stop_queue(0).unwrap(), 1);
    drop(front_end);
    disk.assert_serves();
    assert!(disk.daemon.terminate(SOON).unwrap().status.success());
}

#[test]
fn a_bad_write_to_the_configuration_is_ignored() {
    let disk = Disk::start("blk-bad-config", 1 << 20);
    let (mut front_end, mut blk) = disk.driver(ALL);
    for (offset, bytes) in [(32, &[2_u8][..]), (0, &[0; 8]), (250, &[1; 4])] {
        // Without an answer: a front end may ask for one, and is told of no error either.
        front_end.set_config(offset, bytes).unwrap();
        assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    }
    assert_eq!(front_end.get_config(32, 1).unwrap(), [1]);
    assert_eq!(front_end.get_config(0, 8).unwrap(), 2048_u64.to_le_bytes());
}

#[test]
fn breaking_rings_again_and_again_does_not_flood_the_log() {
    let disk = Disk::start("blk-break-flood", 1 << 20);
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    for _ in 0..100 {
        let mut queue = front_end.set_up_queue(0, 64).unwrap();
        queue.overflow_avail().unwrap();
        front_end.stop_queue(0).unwrap();
    }
    let lines = disk.daemon.stderr().lines().count();
    assert!(lines < 40, "{lines} log lines");
}

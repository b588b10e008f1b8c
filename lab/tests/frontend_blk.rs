//! The front end and the block driver against a daemon that none of us wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::frontend::blk::{Blk, Data, Range, kind, status};
use lab::frontend::garbage::{self, Reaction};
use lab::frontend::{FrontEnd, GuestAddress, GuestMemory, Negotiated, ProtocolFeatures, features};
use lab::process::Daemon;
use lab::scratch::Scratch;

type TestResult = Result<(), Box<dyn std::error::Error>>;

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

struct Peer {
    _daemon: Daemon,
    socket: PathBuf,
    image: PathBuf,
    _scratch: Scratch,
}

fn peer(test: &str) -> Result<Peer, Box<dyn std::error::Error>> {
    let scratch = Scratch::new(test)?;
    let (image, socket) = (
        scratch.image("disk", 16 * MIB as u64)?,
        scratch.join("blk.sock"),
    );
    let daemon = Daemon::builder(lab::need::program("qemu-storage-daemon")?)
        .arg("--blockdev")
        .arg(format!(
            "driver=file,node-name=disk,filename={},discard=unmap",
            image.display()
        ))
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,\
             addr.type=unix,addr.path={}",
            socket.display()
        ))
        .spawn_listening(&socket, 5 * SECOND)?;
    Ok(Peer {
        _daemon: daemon,
        socket,
        image,
        _scratch: scratch,
    })
}

fn connect(socket: &Path, wanted: u64) -> lab::frontend::Result<(FrontEnd, Negotiated)> {
    let memory = GuestMemory::new(&[
        (GuestAddress(0), 4 * MIB),
        (GuestAddress(0x1_0000_0000), 16 * MIB),
    ])?;
    let mut front_end = FrontEnd::connect(socket, 5 * SECOND)?;
    let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::REPLY_ACK | ProtocolFeatures::MQ;
    let negotiated = front_end.handshake(features::VERSION_1 | wanted, protocol)?;
    front_end.set_mem_table(&memory)?;
    Ok((front_end, negotiated))
}

#[test]
fn writes_are_read_back_and_reach_the_image() -> TestResult {
    for (wanted, indirect) in [
        (0, false),
        (features::EVENT_IDX | features::INDIRECT_DESC, true),
    ] {
        let peer = peer("blk-write")?;
        let (mut front_end, negotiated) = connect(&peer.socket, wanted)?;
        assert_eq!(negotiated.features & wanted, wanted);
        assert_eq!(front_end.get_config(0, 8)?, 0x8000_u64.to_le_bytes());
        let mut disk = Blk::new(front_end.set_up_queue(0, 128)?);
        disk.exchange().use_indirect(indirect);
        disk.set_segment_len(4096);
        let bytes: Vec<u8> = (0..=250).cycle().take(64 << 10).collect();
        assert_eq!(disk.write(8, &bytes)?, status::OK);
        assert_eq!(disk.flush()?, status::OK);
        assert_eq!(disk.read(8, bytes.len())?, (status::OK, bytes.clone()));
        assert_eq!(std::fs::read(&peer.image)?[4096..4096 + bytes.len()], bytes);
        let range = Range {
            sector: 8,
            sectors: 8,
            flags: 0,
        };
        assert_eq!(disk.write_zeroes(&[range])?, status::OK);
        assert_eq!(disk.read(8, 4096)?.1, [0; 4096]);
        assert_eq!(disk.get_id()?.0, status::OK);
        assert_eq!(disk.request(77, 0, Data::None)?.0, status::UNSUPP);
        assert!(disk.queue_mut().interrupts()? > 0);
    }
    Ok(())
}

#[test]
fn many_requests_are_in_flight_at_once() -> TestResult {
    let peer = peer("blk-many")?;
    let (mut front_end, _) = connect(&peer.socket, features::EVENT_IDX)?;
    let mut disks = [
        Blk::new(front_end.set_up_queue(0, 256)?),
        Blk::new(front_end.set_up_queue(1, 256)?),
    ];
    for disk in &mut disks {
        let reads = (0..64).map(|i| disk.stage(kind::IN, i * 8, Data::FromDevice(4096)));
        let reads = reads.collect::<Result<Vec<_>, _>>()?;
        disk.kick()?;
        assert_eq!(disk.exchange().in_flight(), 64);
        for read in reads.into_iter().rev() {
            assert_eq!(disk.wait(read)?, (status::OK, vec![0; 4096]));
        }
    }
    Ok(())
}

// QEMU 7.2's daemon answers GET_VRING_BASE with requests in flight and writes their data later,
// so its queue is stopped at rest here; ours are stopped under load in their own tests.
#[test]
fn a_stopped_queue_goes_on_where_it_was() -> TestResult {
    let peer = peer("blk-stop")?;
    let (mut front_end, _) = connect(&peer.socket, 0)?;
    let mut disk = Blk::new(front_end.set_up_queue(0, 128)?);
    for sector in 0..5 {
        assert_eq!(disk.write(sector, &[7; 512])?, status::OK);
    }
    let base = front_end.stop_queue(0)?;
    assert_eq!(base, 5);
    let memory = disk.queue().memory().clone();
    let sum = memory.checksum_all()?;
    let read = disk.submit(kind::IN, 0, Data::FromDevice(512))?;
    assert_ne!(
        memory.checksum_all()?,
        sum,
        "the request itself is in guest memory"
    );
    assert!(disk.wait_any(SECOND / 10)?.is_empty());
    front_end.attach_queue(disk.queue(), base)?;
    disk.queue().kick_always()?;
    assert_eq!(disk.wait(read)?, (status::OK, vec![7; 512]));
    Ok(())
}

#[test]
fn garbage_is_told_from_an_answer() -> TestResult {
    let peer = peer("blk-garbage")?;
    let alive = garbage::alive(&peer.socket, SECOND)?;
    assert!(
        matches!(&alive, Reaction::Answered(bytes) if bytes.len() == 20),
        "{alive:?}"
    );
    assert_eq!(garbage::huge_size(&peer.socket, SECOND)?, Reaction::Closed);
    garbage::partial_then_close(&peer.socket, SECOND)?;
    let silent = garbage::partial_then_silence(&peer.socket, SECOND / 10)?;
    assert_eq!(silent, Reaction::Silent);
    assert!(matches!(
        garbage::alive(&peer.socket, SECOND)?,
        Reaction::Answered(_)
    ));
    Ok(())
}

#[test]
fn a_request_without_an_answer_ends() -> TestResult {
    let (near, _far) = std::os::unix::net::UnixStream::pair()?;
    let mut front_end = FrontEnd::from_stream(near)?;
    front_end.set_timeout(SECOND / 10);
    let error = front_end
        .handshake(0, ProtocolFeatures::empty())
        .unwrap_err();
    assert!(matches!(
        error,
        lab::frontend::Error::NoAnswer {
            request: "GET_FEATURES",
            ..
        }
    ));
    Ok(())
}

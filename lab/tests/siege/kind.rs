//! The daemons: how each is started, what it is asked for, and by what one sees that it serves.

use std::time::{Duration, Instant};

use lab::frontend::FrontEnd;
use lab::frontend::blk::{Blk, kind as request, status};
use lab::frontend::fs::{Caller, Fs, header};
use lab::frontend::net::{Header as FrameHeader, Transmit};
use lab::frontend::vsock::{self, Vsock, op};

use super::dice::Dice;
use super::fort::SOON;

/// The guest's context id.
const CID: u64 = 7;
/// FUSE 7.38, and the opcode of GETATTR (`linux/fuse.h`).
const FUSE_MINOR: u32 = 38;
const GETATTR: u32 = 3;
/// Opcodes go up to there, and a little further.
const OPCODES: u64 = 56;
const SECTORS: u64 = 16 << 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Disk,
    Share,
    Network,
    Sockets,
}

/// What a request consists of: bytes for the device, and room for its answer.
pub(crate) struct Request {
    pub(crate) readable: Vec<Vec<u8>>,
    pub(crate) writable: Vec<u32>,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Disk, Self::Share, Self::Network, Self::Sockets];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Share => "share",
            Self::Network => "network",
            Self::Sockets => "sockets",
        }
    }

    /// The program and its options, with `@` for its directory.
    pub(crate) fn command(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Disk => (
                "vhost-user-blk",
                &["--blk-file", "@/disk", "--queues", "2", "--discard", "on"],
            ),
            Self::Share => ("virtiofsd", &["--shared-dir", "@/shared"]),
            Self::Network => ("vhost-user-net", &["--tap", super::fort::TAP]),
            Self::Sockets => ("vhost-user-vsock", &["--cid", "7", "--uds-path", "@/guest"]),
        }
    }

    /// Those that are attacked.
    pub(crate) fn queues(self) -> &'static [usize] {
        match self {
            Self::Sockets => &[0, 1, 2],
            _ => &[0, 1],
        }
    }

    /// One that a driver might send, but for a value here and there.
    pub(crate) fn request(self, queue: usize, dice: &mut Dice) -> Request {
        match self {
            Self::Disk => disk(dice),
            Self::Share => share(dice),
            Self::Network | Self::Sockets if queue == 0 => Request {
                readable: Vec::new(),
                writable: vec![dice.below(4096) as u32],
            },
            Self::Network => frame(dice),
            Self::Sockets => packet(dice),
        }
    }

    /// Does honest work on a session that has memory.
    pub(crate) fn work(self, front_end: &mut FrontEnd) -> lab::frontend::Result<()> {
        match self {
            Self::Disk => {
                let mut disk = Blk::new(front_end.set_up_queue(0, 16)?);
                disk.exchange().set_timeout(SOON);
                let content = lab::pattern(3, 8192);
                assert_eq!(disk.write(8, &content)?, status::OK);
                assert!(disk.read(8, 8192)? == (status::OK, content));
            }
            Self::Share => {
                let mut share = Fs::new(front_end.set_up_queue(1, 16)?);
                share.exchange().set_timeout(SOON);
                share.init(FUSE_MINOR, 0)?;
                let reply = share.request(GETATTR, Caller::root(1), &[&[0; 16]], 104)?;
                assert_eq!((reply.error, reply.body.len()), (0, 104));
            }
            Self::Network => {
                let mut transmit = Transmit::new(front_end.set_up_queue(1, 16)?);
                transmit.exchange().set_timeout(SOON);
                transmit.send(FrameHeader::default(), &[0x55; 64])?;
            }
            Self::Sockets => refused(&mut Vsock::start(front_end, 8, 4096)?)?,
        }
        Ok(())
    }
}

/// Nobody listens at the port: the guest is told so.
fn refused(sockets: &mut Vsock) -> lab::frontend::Result<()> {
    sockets.transmit().set_timeout(SOON);
    let header = vsock::Header {
        src_cid: CID,
        dst_cid: vsock::HOST_CID,
        src_port: 5,
        dst_port: 6,
        kind: vsock::STREAM,
        op: op::REQUEST,
        buf_alloc: 4096,
        ..vsock::Header::default()
    };
    sockets.send(header, &[])?;
    let deadline = Instant::now() + SOON;
    // It may have something to say of before.
    while let Some(packet) = sockets.receive(Duration::from_secs(1))? {
        let said = packet.header;
        if (said.op, said.dst_port, said.src_port) == (op::RST, 5, 6) {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "the guest is not told");
    }
    panic!("nothing is said to the guest");
}

fn disk(dice: &mut Dice) -> Request {
    let kinds = [
        request::IN,
        request::OUT,
        request::FLUSH,
        request::GET_ID,
        request::DISCARD,
        request::WRITE_ZEROES,
        dice.any() as u32,
    ];
    let kind = kinds[dice.below(7) as usize];
    let sector = match dice.once_in(4) {
        true => dice.any(),
        false => dice.below(SECTORS),
    };
    let head = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let sectors = dice.below(16);
    let len = match dice.once_in(4) {
        true => dice.below(9000),
        false => sectors * 512,
    };
    match kind {
        request::IN | request::GET_ID => Request {
            readable: vec![head],
            writable: vec![len as u32, 1],
        },
        _ => Request {
            readable: vec![head, dice.bytes(len)],
            writable: vec![1],
        },
    }
}

fn share(dice: &mut Dice) -> Request {
    let opcode = dice.below(OPCODES) as u32;
    let mut body = match dice.below(3) {
        // Names, one or two.
        0 => [&dice.bytes(8)[..], b"name\0other\0"].concat(),
        1 => (0..dice.below(12))
            .flat_map(|_| dice.any().to_le_bytes())
            .collect(),
        _ => {
            let len = dice.below(200);
            dice.bytes(len)
        }
    };
    if dice.once_in(8) {
        body.extend(dice.bytes(5000));
    }
    let node = match dice.below(3) {
        0 => 1,
        1 => dice.below(8),
        _ => dice.any(),
    };
    let len = match dice.once_in(8) {
        true => dice.any() as u32,
        false => (40 + body.len()) as u32,
    };
    let head = header(len, opcode, dice.any(), Caller::root(node));
    let room = [0, 4, 128, 4096, 9000][dice.below(5) as usize];
    Request {
        readable: vec![head.to_vec(), body],
        writable: vec![16, room],
    }
}

fn frame(dice: &mut Dice) -> Request {
    let head = dice.bytes(12);
    let len = dice.below(2000);
    Request {
        readable: vec![head, dice.bytes(len)],
        writable: Vec::new(),
    }
}

fn packet(dice: &mut Dice) -> Request {
    let payload = dice.below(600);
    let mut likely = |right: u64| match dice.once_in(8) {
        true => dice.any(),
        false => right,
    };
    let (src_cid, dst_cid, len) = (likely(CID), likely(vsock::HOST_CID), likely(payload) as u32);
    let header = vsock::Header {
        src_cid,
        dst_cid,
        src_port: dice.below(4) as u32,
        dst_port: dice.below(4) as u32,
        len,
        kind: vsock::STREAM,
        op: dice.below(9) as u16,
        flags: dice.below(4) as u32,
        buf_alloc: dice.any() as u32,
        fwd_cnt: dice.any() as u32,
    };
    Request {
        readable: vec![header.to_bytes(), dice.bytes(payload)],
        writable: Vec::new(),
    }
}

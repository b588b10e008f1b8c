//! A daemon that notes its requests in flight in shared memory (vhost-user, "Inflight I/O tracking"). None
//! of Debian's does, so the test plays it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{JoinHandle, spawn};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::*;

/// Request numbers of the protocol.
const GET_FEATURES: u32 = 1;
const SET_VRING_ENABLE: u32 = 18;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const GET_CONFIG: u32 = 24;
const GET_INFLIGHT_FD: u32 = 31;
const SET_INFLIGHT_FD: u32 = 32;
/// VERSION_1, and protocol features.
const FEATURES: u64 = 1 << 32 | 1 << 30;
/// MQ, REPLY_ACK, CONFIG, INFLIGHT_SHMFD.
const PROTOCOL: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 12;
const REPLY: u32 = 1 | 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const NOTE: &[u8] = b"request 7 has begun";
const AREA: u64 = 4096;

/// What it was asked, and the notes that it was handed.
#[derive(Default)]
struct Life {
    asked: Vec<u32>,
    handed: Vec<u8>,
}

#[test]
fn the_next_daemon_gets_the_notes_of_the_last_one() {
    let scratch = Scratch::new("vmm-notes").unwrap();
    let socket = scratch.join("blk");
    let memory = MemoryConfig {
        size: ByteSize(64 << 20),
        hugepages: false,
        prefault: false,
    };
    let memory = GuestMemory::new(memory).unwrap();
    let first = serve(&socket);
    let device = FrontEnd::connect(config(&socket), &memory, Patience::Starting).unwrap();
    let mut disk = Disk::new(device, &memory);
    disk.start();
    let first = first.join().unwrap();
    assert!(first.asked.contains(&GET_INFLIGHT_FD), "{:?}", first.asked);
    let second = serve(&socket).join().unwrap();
    assert!(
        !second.asked.contains(&GET_INFLIGHT_FD),
        "{:?}",
        second.asked
    );
    assert_eq!(second.handed[..NOTE.len()], *NOTE);
    assert_eq!(second.handed.len() as u64, AREA);
    // A driver that begins anew has nothing in flight.
    let third = serve(&socket);
    disk.device.reset();
    wait_for("the reset", || disk.device.is_reset());
    disk.start();
    let third = third.join().unwrap();
    assert!(third.asked.contains(&GET_INFLIGHT_FD), "{:?}", third.asked);
}

/// A daemon that lives until its queue is enabled, with something in flight.
fn serve(socket: &Path) -> JoinHandle<Life> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut life = Life::default();
        while life.asked.last() != Some(&SET_VRING_ENABLE) {
            answer(&mut stream, &mut life);
        }
        life
    })
}

fn answer(stream: &mut UnixStream, life: &mut Life) {
    let mut header = [0; 12];
    let (_, file) = stream.recv_with_fd(&mut header).unwrap();
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let (request, flags, size) = (word(0), word(4), word(8));
    let mut body = vec![0; size as usize];
    stream.read_exact(&mut body).unwrap();
    life.asked.push(request);
    let number = |it: u64| it.to_le_bytes().to_vec();
    match request {
        GET_FEATURES => reply(stream, request, &number(FEATURES)),
        GET_PROTOCOL_FEATURES => reply(stream, request, &number(PROTOCOL)),
        GET_QUEUE_NUM => reply(stream, request, &number(1)),
        GET_CONFIG => reply(stream, request, &body),
        GET_INFLIGHT_FD => hand_out_notes(stream, &body),
        SET_INFLIGHT_FD => life.handed = notes(file.unwrap()),
        _ => {}
    }
    if request != GET_INFLIGHT_FD && flags & NEED_REPLY != 0 && !is_question(request) {
        reply(stream, request, &number(0));
    }
}

fn is_question(request: u32) -> bool {
    [
        GET_FEATURES,
        GET_PROTOCOL_FEATURES,
        GET_QUEUE_NUM,
        GET_CONFIG,
    ]
    .contains(&request)
}

fn message(request: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    let header = [request, REPLY, size].map(u32::to_le_bytes).concat();
    [&header, body].concat()
}

fn reply(stream: &mut UnixStream, request: u32, body: &[u8]) {
    stream.write_all(&message(request, body)).unwrap();
}

fn hand_out_notes(stream: &UnixStream, wanted: &[u8]) {
    // As asked for: one queue of 128 entries.
    assert_eq!(wanted[16..20], [1, 0, 128, 0]);
    let memory = rustix::fs::memfd_create("notes", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(memory);
    file.set_len(AREA).unwrap();
    file.write_all(NOTE).unwrap();
    let area = [AREA.to_le_bytes(), 0_u64.to_le_bytes()].concat();
    let bytes = message(GET_INFLIGHT_FD, &[&area, &wanted[16..]].concat());
    stream.send_with_fd(&bytes[..], file.as_raw_fd()).unwrap();
}

fn notes(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

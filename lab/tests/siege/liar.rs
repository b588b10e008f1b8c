//! A hostile front end: messages in any order, with any values, cut and mixed up, with descriptors that they do not
//! take and without those that they do.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lab::frontend::FrontEnd;
use lab::frontend::garbage::{Reaction, message, react, send_with_fds};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::dice::Dice;
use super::fort::{Fort, SOON};

const MESSAGES: u64 = 40;
/// Requests by number go up to there, and a little further (vhost-user specification, "Front-end message types").
const REQUESTS: u64 = 48;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;
const MEMORY: u64 = 1 << 20;
/// An answer that is not there by then is none.
const PATIENCE: Duration = Duration::from_millis(5);

/// One front end's life. Returns how many messages it sent.
pub(crate) fn attack(fort: &Fort, dice: &mut Dice) -> u64 {
    let front_end = FrontEnd::connect(&fort.socket(), SOON).unwrap();
    let stream = front_end.stream();
    let memory = memfd_create("siege", MemfdFlags::CLOEXEC)
        .map(File::from)
        .unwrap();
    ftruncate(&memory, MEMORY).unwrap();
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let (socket, _) = UnixStream::pair().unwrap();
    // The connection itself, too: the daemon must learn that we are gone even so.
    let descriptors = [
        memory.as_fd(),
        event.as_fd(),
        socket.as_fd(),
        stream.as_fd(),
    ];
    // Without an owner nothing else is done.
    say(stream, &message(SET_OWNER, VERSION, 0, &[]), &[]);
    for sent in 0..MESSAGES {
        let request = match dice.once_in(12) {
            true => dice.any() as u32,
            false => dice.below(REQUESTS) as u32,
        };
        let payload = payload(request, dice);
        let size = match dice.once_in(12) {
            true => dice.any() as u32,
            false => payload.len() as u32,
        };
        let flags = match dice.once_in(12) {
            true => dice.any() as u32,
            false => VERSION | if dice.once_in(2) { NEED_REPLY } else { 0 },
        };
        let mut bytes = message(request, flags, size, &payload);
        if dice.once_in(20) {
            bytes.truncate(dice.below(bytes.len() as u64) as usize);
        }
        let given: Vec<BorrowedFd<'_>> = match dice.below(3) {
            0 => vec![descriptors[dice.below(4) as usize]],
            1 if request == SET_MEM_TABLE => vec![memory.as_fd(); 1 + dice.below(8) as usize],
            _ => Vec::new(),
        };
        if !say(stream, &bytes, &given) {
            return sent;
        }
    }
    MESSAGES
}

/// Whether the connection stays.
fn say(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
    let said = match descriptors {
        [] => (&*stream).write_all(bytes),
        _ if bytes.is_empty() => Ok(()),
        _ => send_with_fds(stream, bytes, descriptors),
    };
    said.is_ok() && react(stream, PATIENCE).is_ok_and(|it| it != Reaction::Closed)
}

/// Numbers of the width that most messages have; of memory tables the form as well.
fn payload(request: u32, dice: &mut Dice) -> Vec<u8> {
    if request == SET_MEM_TABLE && !dice.once_in(4) {
        let regions = 1 + dice.below(8) as u32;
        let mut table = [regions, 0].map(u32::to_le_bytes).concat();
        for region in 0..u64::from(regions) {
            let words = match dice.once_in(3) {
                true => [dice.any(), dice.any(), dice.any(), dice.any()],
                false => [region * MEMORY, MEMORY, 0x7000_0000 + region * MEMORY, 0],
            };
            table.extend(words.map(u64::to_le_bytes).concat());
        }
        return table;
    }
    let words = dice.below(6);
    (0..words)
        .flat_map(|_| match dice.below(3) {
            0 => dice.below(4).to_le_bytes(),
            // A ring's index and a number beside it.
            1 => (dice.below(4) | dice.any() << 32).to_le_bytes(),
            _ => dice.any().to_le_bytes(),
        })
        .collect()
}

//! `kill -9` in the middle of large writes that append (`--state-dir`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;
mod surviving;

use std::fs;
use std::time::Duration;

use lab::frontend::Ticket;
use lab::frontend::fs::Caller;
use share::session::{number, transfer};
use surviving::Guest;
use virtiofsd::fuse::Opcode;

/// Of each write, as large as they come.
const SIZE: usize = 1 << 20;
const FILES: usize = 12;
const ROUNDS: u64 = 24;

fn data() -> Vec<u8> {
    let words = 0..(SIZE / 8) as u64;
    words.flat_map(u64::to_le_bytes).collect()
}

fn append(guest: &mut Guest, file: (u64, u64), data: &[u8]) -> Ticket {
    let mut write = transfer(file.1, 0, data.len() as u32);
    write[32..36].copy_from_slice(&libc::O_APPEND.to_le_bytes());
    let caller = Caller::root(file.0);
    let body: &[&[u8]] = &[&write, data];
    let sent = guest.fs.submit(Opcode::Write as u32, caller, body, &[8]);
    sent.unwrap()
}

/// Linux ends such a write where a page of the file or of the data ends. Of those that append to one file a
/// guest's kernel sends one after the other.
#[test]
fn large_appends_happen_once() {
    let mut guest = Guest::start("survival-appends", &[]);
    let data = data();
    let names: Vec<String> = (0..FILES).map(|at| format!("log{at}")).collect();
    let mut files = Vec::new();
    for name in &names {
        let file = guest.session().create(name);
        // Not at the beginning of a page.
        assert_eq!(guest.session().write(file, 0, b"begin").error, 0);
        files.push(file);
    }
    for round in 0..ROUNDS {
        let send = |file| append(&mut guest, file, &data);
        let tickets: Vec<_> = files.iter().copied().map(send).collect();
        // Somewhere in the middle of it.
        std::thread::sleep(Duration::from_micros(round * 211 % 5000));
        guest.kill();
        for ticket in tickets {
            let reply = guest.fs.wait(ticket).unwrap();
            assert_eq!((reply.error, number(&reply.body, 0)), (0, SIZE as u64));
        }
        for name in &names {
            let log = fs::read(guest.path(name)).unwrap();
            assert_eq!(log.len(), 5 + SIZE, "round {round}");
            assert!(log[5..] == data, "round {round}");
            let file = fs::File::options().write(true).open(guest.path(name));
            file.unwrap().set_len(5).unwrap();
        }
    }
}

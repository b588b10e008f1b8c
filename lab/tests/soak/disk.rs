//! Blocks are written and read at random, several at a time, each beside what it must hold.

use std::collections::HashMap;
use std::time::Instant;

use lab::frontend::blk::{Blk, Data, kind, status};
use lab::frontend::{GuestMemory, Ticket};

use super::subject::{Report, SOON, Subject};
use super::{Load, Loaded, soak as soak_both};

const BLOCK: usize = 8192;
const BLOCKS: u64 = 1024;
/// Bytes of the disk.
pub(crate) const LEN: u64 = BLOCKS * BLOCK as u64;
const DEPTH: usize = 16;
const STEPS: u64 = 200;

pub(crate) fn soak(seed: u64, until: Instant) -> Vec<Report> {
    let disks = [("disk", false), ("disk, killed", true)];
    soak_both(disks.map(|(name, mortal)| begin(name, mortal, seed)), until)
}

pub(crate) fn begin(name: &'static str, mortal: bool, seed: u64) -> Loaded {
    let options = ["--blk-file", "@/disk", "--state-dir", "@/state"];
    let subject = Subject::new(name, ("vhost-user-blk", &options), (mortal, seed), None);
    let written = vec![0; BLOCKS as usize];
    (subject, Box::new(Disk { written }))
}

struct Disk {
    /// The version that each block holds.
    written: Vec<u64>,
}

impl Load for Disk {
    fn round(&mut self, subject: &mut Subject) {
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let mut front_end = subject.front_end(&memory);
        let mut blk = Blk::new(front_end.set_up_queue(0, 64).unwrap());
        blk.exchange().set_timeout(SOON);
        let dies_at = subject.mortal.then(|| subject.random(STEPS));
        let mut writes: HashMap<Ticket, (u64, u64)> = HashMap::new();
        for step in 0..STEPS {
            let block = subject.random(BLOCKS);
            if !writes.values().any(|(under_way, _)| *under_way == block) {
                let version = subject.round << 16 | (step + 1);
                let bytes = content(block, version);
                let data = Data::ToDevice(&bytes);
                let ticket = blk.submit(kind::OUT, sector(block), data).unwrap();
                writes.insert(ticket, (block, version));
            }
            if dies_at == Some(step) {
                drop(front_end);
                front_end = subject.kill(|subject| {
                    let mut front_end = subject.front_end(&memory);
                    let base = blk.queue().used_idx().unwrap();
                    front_end.attach_queue(blk.queue(), base).unwrap();
                    blk.queue().kick_always().unwrap();
                    self.await_all(&mut blk, &mut writes);
                    front_end
                });
            } else if writes.len() >= DEPTH {
                self.await_all(&mut blk, &mut writes);
            }
        }
        self.await_all(&mut blk, &mut writes);
        assert_eq!(blk.flush().unwrap(), status::OK, "{subject}");
        for _ in 0..STEPS {
            let block = subject.random(BLOCKS);
            let (state, read) = blk.read(sector(block), BLOCK).unwrap();
            let expected = content(block, self.written[block as usize]);
            assert!(
                state == status::OK && read == expected,
                "{subject}: block {block}"
            );
        }
        subject.requests += 2 * STEPS;
        subject.bytes += 2 * STEPS * BLOCK as u64;
    }
}

impl Disk {
    fn await_all(&mut self, blk: &mut Blk, writes: &mut HashMap<Ticket, (u64, u64)>) {
        for (ticket, (block, version)) in writes.drain() {
            let (state, _) = blk.wait(ticket).unwrap();
            assert_eq!(state, status::OK, "block {block}");
            self.written[block as usize] = version;
        }
    }
}

fn sector(block: u64) -> u64 {
    block * BLOCK as u64 / 512
}

fn content(block: u64, version: u64) -> Vec<u8> {
    match version {
        0 => vec![0; BLOCK],
        _ => lab::pattern(block << 40 | version, BLOCK),
    }
}

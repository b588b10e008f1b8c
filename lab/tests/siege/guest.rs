//! A hostile guest: rings, chains, tables and requests of any form, and memory that changes while it is read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::frontend::{
    Descriptor, DriverQueue, Error, FrontEnd, GuestAddress, GuestMemory, descriptor_flags,
};

use super::dice::Dice;
use super::fort::Fort;
use super::kind::Request;
use super::meddler::{Meddler, Ranges};

const MEMORY: usize = 32 << 20;
/// Where requests are made: the meddler knows it.
const ARENA: u64 = 64 << 10;
/// Of which that much is meddled with: heads and the tables stand at its start.
const HEADS: u64 = 2048;
const MOVES: u64 = 60;

/// One guest's life. Returns how much it did.
pub(crate) fn attack(fort: &Fort, dice: &mut Dice) -> u64 {
    let memory = GuestMemory::with_size(MEMORY).unwrap();
    let features = fort.features(dice);
    let mut front_end = fort.front_end(&memory, features).unwrap();
    let arena = memory.alloc(ARENA as usize, 4096).unwrap();
    let ranges: Ranges = Arc::new(Mutex::new(vec![(arena, HEADS)]));
    let mut guest = Guest {
        features: front_end.negotiated().unwrap().features,
        queues: Vec::new(),
        memory: memory.clone(),
        arena,
        ranges,
    };
    for &index in fort.kind.queues() {
        let size = 1 << dice.below(9);
        let queue = front_end.set_up_queue(index, size).unwrap();
        guest.knows(&queue);
        guest.queues.push(queue);
    }
    let meddler = dice
        .once_in(2)
        .then(|| Meddler::start(&memory, &guest.ranges, dice.split()));
    for done in 0..MOVES {
        match guest.act(fort, &mut front_end, dice) {
            Ok(()) => {}
            Err(error @ Error::NoAnswer { .. }) => panic!("{fort}: {error}"),
            // It may be rid of such a guest.
            Err(_) => return done,
        }
    }
    drop(meddler);
    MOVES
}

struct Guest {
    features: u64,
    queues: Vec<DriverQueue>,
    memory: GuestMemory,
    arena: GuestAddress,
    ranges: Ranges,
}

impl Guest {
    /// The ring is meddled with, too.
    fn knows(&self, queue: &DriverQueue) {
        let at = queue.addresses();
        let size = u64::from(queue.size());
        let mut ranges = self.ranges.lock().unwrap();
        ranges.push((at.desc, 16 * size));
        ranges.push((at.avail, 6 + 2 * size));
        // Of before a reset: nobody looks there.
        let surplus = ranges.len().saturating_sub(8);
        ranges.drain(1..=surplus);
    }

    fn act(
        &mut self,
        fort: &Fort,
        front_end: &mut FrontEnd,
        dice: &mut Dice,
    ) -> lab::frontend::Result<()> {
        let place = dice.below(self.queues.len() as u64) as usize;
        if dice.once_in(10) {
            return self.reset(place, front_end, dice);
        }
        let request = fort.kind.request(self.queues[place].index(), dice);
        let chain = self.chain(&request, dice)?;
        let (size, arena) = (self.queues[place].size(), self.arena);
        let queue = &mut self.queues[place];
        let index = |dice: &mut Dice| dice.below(u64::from(size)) as u16;
        match dice.below(16) {
            0 => queue.submit_loop(arena, 1 + index(dice)),
            1 => queue.submit_next_out_of_range(arena),
            2 => queue.submit_nested_indirect(arena),
            3 => queue.submit_indirect_bad_len(arena),
            4 => queue.submit_indirect_raw(&chain, dice.any() as u32),
            5 => queue.overflow_avail(),
            6 => queue.write_avail_idx(dice.any() as u16),
            7 => queue.write_avail_entry(index(dice), dice.any() as u16),
            8 => queue.submit_head(dice.any() as u16),
            9 => queue.kick_always(),
            10 => queue.set_used_event(dice.any() as u16),
            11 => queue.any_used(Duration::from_millis(2)).map(drop),
            12 | 13 => {
                let table = dice.once_in(2).then(|| 16 * chain.len() as u32);
                queue.submit_indirect_raw(&chain, table.unwrap_or(dice.below(4096) as u32))
            }
            _ => queue.submit_raw(0, &chain[..chain.len().min(usize::from(size))]),
        }
    }

    /// Stops it and starts anew, as a driver does that resets its device; at any index.
    fn reset(
        &mut self,
        place: usize,
        front_end: &mut FrontEnd,
        dice: &mut Dice,
    ) -> lab::frontend::Result<()> {
        let queue = &mut self.queues[place];
        front_end.stop_queue(queue.index())?;
        queue.renew(self.features)?;
        let base = match dice.once_in(4) {
            true => dice.any() as u16,
            false => 0,
        };
        front_end.attach_queue(queue, base)?;
        let queue = &self.queues[place];
        self.knows(queue);
        Ok(())
    }

    /// The request as descriptors, with its heads where the meddler is, and one value in three wrong.
    fn chain(&self, request: &Request, dice: &mut Dice) -> lab::frontend::Result<Vec<Descriptor>> {
        let mut at = self.arena.0;
        let mut parts = Vec::new();
        for bytes in &request.readable {
            self.memory.write(GuestAddress(at), bytes)?;
            parts.push((at, bytes.len() as u32, 0));
            at += bytes.len() as u64;
        }
        for len in &request.writable {
            parts.push((at, *len, descriptor_flags::WRITE));
            at += u64::from(*len);
        }
        let count = parts.len();
        let mut chain: Vec<Descriptor> = Vec::new();
        for (place, (addr, len, flags)) in parts.into_iter().enumerate() {
            let more = place + 1 < count;
            chain.push(Descriptor {
                addr,
                len,
                flags: flags | if more { descriptor_flags::NEXT } else { 0 },
                next: if more { place as u16 + 1 } else { 0 },
            });
        }
        if dice.once_in(3) {
            let place = dice.below(count as u64) as usize;
            let one = &mut chain[place];
            match dice.below(4) {
                0 => one.addr = dice.any(),
                1 => one.len = dice.any() as u32,
                2 => one.flags = dice.any() as u16,
                _ => one.next = dice.any() as u16,
            }
        }
        Ok(chain)
    }
}

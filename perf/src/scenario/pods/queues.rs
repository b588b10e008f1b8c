//! What a queue costs: a disk's daemon with more and more of them, all in use by our own front end.

use std::time::Duration;

use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, blk::Blk, features};
use lab::process::Daemon;
use lab::scratch::Scratch;

use super::error::Error;
use super::growth::who;
use super::parts;
use super::start::lower;
use crate::findings::{Collector, Told};
use crate::peer::find_ours;
use crate::scenario::Role;

const PRIVATE: Told = lower("private memory that is written", "KiB");
const THREADS: Told = lower("threads", "count");
const DESCRIPTORS: Told = lower("open files", "count");

/// Where they are told.
pub(super) const GROUP: &str = "a disk's daemon";

const COUNTS: [u32; 4] = [1, 2, 4, 8];
const SOON: Duration = Duration::from_secs(20);
const DISK: u64 = 64 << 20;
const ENTRIES: u16 = 128;

/// For each number of queues, in turns.
pub(super) fn measure(rounds: u32, found: &mut Collector) -> Result<(), Error> {
    for _ in 0..rounds {
        for count in COUNTS {
            let held = hold(count)?;
            let figures = [
                // Far below 2^52.
                (PRIVATE, held.memory.private_kib as f64),
                (THREADS, f64::from(held.threads)),
                (DESCRIPTORS, f64::from(held.descriptors)),
            ];
            for (told, value) in figures {
                let name = who(count, "queue");
                found.add(GROUP, told, &name, Role::Ours, value);
            }
        }
    }
    Ok(())
}

fn hold(count: u32) -> Result<parts::Held, Error> {
    let scratch = Scratch::new("queues").map_err(|source| Error::Write("/tmp".into(), source))?;
    let image = scratch.image("disk", DISK);
    let image = image.map_err(|source| Error::Write(scratch.join("disk"), source))?;
    let socket = scratch.join("blk.sock");
    let daemon = Daemon::builder(find_ours("vhost-user-blk"))
        .bound()
        .arg(format!("--socket-path={}", socket.display()))
        .arg(format!("--blk-file={}", image.display()))
        .arg(format!("--queues={count}"))
        .spawn_listening(&socket, SOON)?;
    let memory = GuestMemory::with_size(16 << 20)?;
    let mut front_end = FrontEnd::connect(&socket, SOON)?;
    let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end.handshake(features::VERSION_1 | features::EVENT_IDX, protocol)?;
    front_end.set_mem_table(&memory)?;
    let mut disks = Vec::new();
    for index in 0..count as usize {
        let mut disk = Blk::new(front_end.set_up_queue(index, ENTRIES)?);
        disk.read(0, 4096)?;
        disks.push(disk);
    }
    let pid = daemon.pid();
    parts::one(pid).map_err(|source| Error::Measure { pid, source })
}

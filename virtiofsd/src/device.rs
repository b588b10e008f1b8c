//! The virtio file system device (virtio 1.2, 5.11).

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vhost_daemon::queue::InFlightLog;
use vhost_daemon::{Device, Transfer};

use crate::file_system::GuestFileSystem;
use crate::helpers::Helpers;
use crate::server::Server;
use crate::worker::FsWorker;

/// `struct virtio_fs_config.tag`: bytes in the configuration space (virtio 1.2, 5.11.4).
pub const TAG_LEN: usize = 36;

/// Queue 0, for what must not wait behind the others: `FORGET`, `INTERRUPT` (virtio 1.2, 5.11.2).
const HIPRIO_QUEUES: usize = 1;

/// Entries of a queue at most.
pub const QUEUE_SIZE: u16 = 1024;

/// How many queues a device with so many request queues has.
pub fn queues(request_queues: u32) -> usize {
    HIPRIO_QUEUES + request_queues as usize
}

/// A file system device.
pub struct FsDevice<F> {
    server: Arc<Server<F>>,
    helpers: Arc<Helpers>,
    tag: String,
    request_queues: u32,
    /// Tells how the transfer of the state ends.
    transfer: Mutex<Option<Receiver<io::Result<()>>>>,
}

impl<F: GuestFileSystem> FsDevice<F> {
    /// A device that serves `server`'s file system on so many request queues, and has requests that wait
    /// done by `helpers`. `tag` is its name in guests: at most [`TAG_LEN`] bytes.
    pub fn new(server: Server<F>, helpers: Helpers, tag: String, request_queues: u32) -> Self {
        Self {
            server: Arc::new(server),
            helpers: Arc::new(helpers),
            tag,
            request_queues,
            transfer: Mutex::default(),
        }
    }

    fn transfer(&self) -> MutexGuard<'_, Option<Receiver<io::Result<()>>>> {
        self.transfer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most bytes of a state: some million nodes.
const MAX_STATE: u64 = 1 << 30;

fn save<F: GuestFileSystem>(server: &Server<F>, mut file: File) -> io::Result<()> {
    let began = Instant::now();
    let state = server.save()?;
    file.write_all(&state)?;
    let (bytes, took) = (state.len(), began.elapsed());
    tracing::info!(bytes, ?took, "the device's state was sent");
    Ok(())
}

fn load<F: GuestFileSystem>(server: &Server<F>, file: File) -> io::Result<()> {
    let mut state = Vec::new();
    file.take(MAX_STATE).read_to_end(&mut state)?;
    let began = Instant::now();
    server.load(&state)?;
    let (bytes, took) = (state.len(), began.elapsed());
    tracing::info!(bytes, ?took, "the device's state was taken over");
    Ok(())
}

impl<F: GuestFileSystem> Device for FsDevice<F> {
    type Worker = FsWorker<F>;

    fn queues(&self) -> usize {
        queues(self.request_queues)
    }

    fn max_queue_size(&self) -> u16 {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        // Virtio 1.2 has one feature bit for the device, notifications, which is not offered.
        0
    }

    /// `struct virtio_fs_config { char tag[36]; le32 num_request_queues; }`.
    fn config(&self) -> Vec<u8> {
        let mut config = self.tag.clone().into_bytes();
        config.resize(TAG_LEN, 0);
        config.extend_from_slice(&self.request_queues.to_le_bytes());
        config
    }

    /// A process that is killed leaves them to the next one, which has a journal for those that must not
    /// happen twice.
    fn in_flight_log(&self, index: usize) -> Option<InFlightLog> {
        let state = self.server.state()?;
        Some(state.in_flight().queue(index))
    }

    fn has_state(&self) -> bool {
        self.server.file_system().can_move()
    }

    fn transfer_state(&self, direction: Transfer, file: File) -> io::Result<()> {
        let server = self.server.clone();
        let (done, result) = channel();
        *self.transfer() = Some(result);
        self.helpers.submit(Box::new(move || {
            let moved = match direction {
                Transfer::Save => save(&server, file),
                Transfer::Load => load(&server, file),
            };
            // Nobody asks any more if the front end is gone.
            let _ = done.send(moved);
        }));
        Ok(())
    }

    fn transferred(&self) -> io::Result<()> {
        let result = self.transfer().take();
        let result = result.ok_or_else(|| io::Error::other("no transfer was begun"))?;
        result.recv().map_err(io::Error::other)?
    }

    /// Nothing is forgotten on a disconnect: a front end that comes back finds its guest's files
    /// open. A guest that starts afresh says so (`FUSE_INIT`).
    fn disconnected(&self) {}

    fn worker(&self, index: usize, _features: u64) -> io::Result<FsWorker<F>> {
        FsWorker::new(self.server.clone(), self.helpers.clone(), index)
    }
}

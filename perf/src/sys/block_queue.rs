//! A vhost-user block device's queues by libblkio, with memory that outlives every request.

use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use blkio::{Blkio, Blkioq, Completion, Errno, MemoryRegion, ReqFlags};

/// Completions taken at once.
const BATCH: usize = 128;

/// How a connection's queues are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Queues.
    pub queues: u16,
    /// Whether the driver polls the rings instead of waiting on eventfds.
    pub polling: bool,
    /// Requests each queue can have in flight.
    pub depth: u16,
    /// Bytes of a request.
    pub block: u32,
}

/// A started device. Dropping it closes the connection and frees the memory.
pub(crate) struct BlockDevice {
    queues: Vec<BlockQueue>,
    capacity: u64,
    // After the queues: their rings live in its memory.
    _blkio: Blkio,
}

/// One queue with a buffer for each of its requests.
pub(crate) struct BlockQueue {
    queue: Blkioq,
    buffers: usize,
    block: usize,
    polling: bool,
}

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
}

/// A request that has completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Its buffer.
    pub slot: u16,
    /// 0, or a negative errno.
    pub result: i32,
}

impl BlockDevice {
    pub(crate) fn open(socket: &Path, layout: Layout) -> Result<Self, blkio::Error> {
        let mut blkio = Blkio::new("virtio-blk-vhost-user")?;
        blkio.set_str("path", &socket.to_string_lossy())?;
        blkio.connect()?;
        // Header, data and status take a descriptor each.
        let size = (layout.depth * 3).next_power_of_two().max(128);
        blkio.set_i32("queue-size", i32::from(size))?;
        let (waiting, polling) = match layout.polling {
            true => (0, layout.queues),
            false => (layout.queues, 0),
        };
        blkio.set_i32("num-queues", i32::from(waiting))?;
        blkio.set_i32("num-poll-queues", i32::from(polling))?;
        let capacity = blkio.get_u64("capacity")?;
        let mut started = blkio.start()?;
        started.queues.append(&mut started.poll_queues);
        let share = usize::from(layout.depth) * layout.block as usize;
        let region = blkio.alloc_mem_region(share * started.queues.len())?;
        fill(&region);
        blkio.map_mem_region(&region)?;
        let queues = started.queues.into_iter().enumerate();
        let queues = queues.map(|(index, queue)| BlockQueue {
            queue,
            buffers: region.addr + index * share,
            block: layout.block as usize,
            polling: layout.polling,
        });
        Ok(Self {
            queues: queues.collect(),
            capacity,
            _blkio: blkio,
        })
    }

    /// Bytes of the device.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The queues, each for one thread.
    pub(crate) fn queues(&mut self) -> &mut [BlockQueue] {
        &mut self.queues
    }
}

impl BlockQueue {
    /// Whether the ring is watched instead of an eventfd.
    pub(crate) fn is_polling(&self) -> bool {
        self.polling
    }

    /// Puts a request into the ring. The slot must not be in flight.
    pub(crate) fn submit(&mut self, operation: Operation, slot: u16, offset: u64) {
        let buffer = (self.buffers + usize::from(slot) * self.block) as *mut u8;
        let (token, none) = (usize::from(slot), ReqFlags::empty());
        match operation {
            Operation::Read => self.queue.read(offset, buffer, self.block, token, none),
            Operation::Write => self.queue.write(offset, buffer, self.block, token, none),
        }
    }

    /// Kicks the device for what was put into the ring and takes what has completed. Waits for
    /// the first one at most `patience` on an eventfd queue, and not at all on a polling queue.
    pub(crate) fn take(
        &mut self,
        patience: Duration,
        mut each: impl FnMut(Done),
    ) -> Result<usize, blkio::Error> {
        let mut completions = [const { MaybeUninit::<Completion>::uninit() }; BATCH];
        let mut patience = patience;
        let taken = match self.polling {
            true => self.queue.do_io(&mut completions, 0, None, None),
            false => self
                .queue
                .do_io(&mut completions, 1, Some(&mut patience), None),
        };
        let taken = match taken {
            Err(error) if matches!(error.errno(), Errno::TIME | Errno::INTR) => 0,
            taken => taken?,
        };
        for completion in completions.iter().take(taken) {
            // SAFETY: do_io has filled the first `taken` entries.
            let completion = unsafe { completion.assume_init_ref() };
            each(Done {
                // A slot's number came from a u16.
                slot: u16::try_from(completion.user_data).unwrap_or(u16::MAX),
                result: completion.ret,
            });
        }
        Ok(taken)
    }
}

/// Touches every page, with bytes that neither a file system nor a device compresses or skips.
fn fill(region: &MemoryRegion) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in 0..region.len / size_of::<u64>() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = (region.addr as *mut u64).wrapping_add(index);
        // SAFETY: the word lies inside the region, which is mapped, writable, page-aligned and
        // not yet shared with a device.
        unsafe { word.write(state) };
    }
}

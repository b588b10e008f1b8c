//! A tap interface of the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use vhost_daemon::sys::Buffers;

use super::interface::Interface;
use super::open::{self, Opened};
use super::{FrameSink, FrameSource, Offloads, Port, PortError, TapError, TapSource};
use crate::header::HeaderLen;
use crate::sys::{self, FrameBatch, Scatter};

/// A tap with one queue for each lane.
pub struct Tap {
    name: String,
    queues: Vec<Arc<TapQueue>>,
    offloads: Offloads,
    mtu: Option<u16>,
    agreed: Mutex<Option<(Offloads, HeaderLen)>>,
}

impl Tap {
    /// Opens a tap for `lanes` queue pairs; with `mtu`, sees to it that the interface has that.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(source: TapSource, lanes: usize, mtu: Option<u16>) -> Result<Self, TapError> {
        match source {
            TapSource::Name { name, netns: None } => {
                Self::set_up(open::by_name(&name, lanes)?, mtu)
            }
            TapSource::Name {
                name,
                netns: Some(netns),
            } => {
                let opened = netns.run(|| Self::set_up(open::by_name(&name, lanes)?, mtu));
                opened.map_err(|source| TapError::Namespace { netns, source })?
            }
            TapSource::Inherited(queues) => Self::set_up(open::inherited(queues)?, mtu),
        }
    }

    fn set_up(opened: Opened, mtu: Option<u16>) -> Result<Self, TapError> {
        let Opened { name, queues } = opened;
        let first = queues.first().ok_or(TapError::NotATap(-1))?;
        let offloads = prepare(first.as_fd()).map_err(|source| TapError::SetUp {
            name: name.clone(),
            source,
        })?;
        let mtu = agree_on_mtu(first.as_fd(), &name, mtu)?;
        let queues = queues.into_iter().map(|fd| Arc::new(TapQueue { fd }));
        let tap = Self {
            queues: queues.collect(),
            offloads,
            mtu,
            agreed: Mutex::new(None),
            name,
        };
        tap.close_lanes()?;
        Ok(tap)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn queue(&self, lane: usize) -> io::Result<Arc<TapQueue>> {
        let queue = self.queues.get(lane).cloned();
        queue.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Until a guest listens, frames are not spread over queues that nobody reads.
    fn close_lanes(&self) -> Result<(), TapError> {
        for index in 0..self.lanes() {
            self.open_lane(index, false)
                .map_err(|source| TapError::SetUp {
                    name: self.name.clone(),
                    source,
                })?;
        }
        Ok(())
    }
}

/// Sets what never changes and finds out what the kernel can do.
fn prepare(fd: BorrowedFd<'_>) -> io::Result<Offloads> {
    sys::set_little_endian(fd)?;
    let base = Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN;
    let mut can = Offloads::NONE;
    for more in [base, Offloads::UFO, Offloads::USO] {
        if sys::set_offloads(fd, (can | more).bits()).is_ok() {
            can = can | more;
        }
    }
    sys::set_offloads(fd, Offloads::NONE.bits())?;
    Ok(can)
}

fn agree_on_mtu(
    fd: BorrowedFd<'_>,
    name: &str,
    wanted: Option<u16>,
) -> Result<Option<u16>, TapError> {
    let interface = Interface::of(fd, name);
    let current = interface.as_ref().ok().and_then(|i| i.mtu().ok());
    match wanted {
        None => return Ok(current),
        Some(_) if wanted == current => {}
        Some(mtu) => {
            let set = interface.and_then(|interface| interface.set_mtu(mtu));
            set.map_err(|source| TapError::Mtu {
                name: name.to_owned(),
                mtu,
                source,
            })?;
        }
    }
    Ok(wanted)
}

impl Port for Tap {
    type Source = TapFrames;
    type Sink = TapSink;

    fn lanes(&self) -> usize {
        self.queues.len()
    }

    fn source(&self, lane: usize) -> io::Result<TapFrames> {
        let queue = self.queue(lane)?;
        let batch = FrameBatch::new(queue.fd.as_fd())?;
        Ok(TapFrames { queue, batch })
    }

    fn sink(&self, lane: usize) -> io::Result<TapSink> {
        let queue = self.queue(lane)?;
        let batch = FrameBatch::new(queue.fd.as_fd())?;
        Ok(TapSink { queue, batch })
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn agree(&self, offloads: Offloads, header: HeaderLen) -> io::Result<()> {
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if *agreed == Some((offloads, header)) {
            return Ok(());
        }
        if let Some(queue) = self.queues.first() {
            let header_len = i32::try_from(header.bytes()).unwrap_or_default();
            // Both are the interface's, not the queue's.
            sys::set_header_len(queue.fd.as_fd(), header_len)?;
            sys::set_offloads(queue.fd.as_fd(), offloads.bits())?;
        }
        *agreed = Some((offloads, header));
        for queue in &self.queues {
            queue.discard();
        }
        Ok(())
    }

    fn open_lane(&self, index: usize, open: bool) -> io::Result<()> {
        match self.queues.get(index) {
            // The only queue stays attached: a tap without multi_queue knows no other way.
            Some(queue) if self.lanes() > 1 => {
                let result = if open {
                    sys::reattach_queue(queue.fd.as_fd())
                } else {
                    sys::detach_queue(queue.fd.as_fd())
                };
                match result {
                    // It is in that state already.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                    other => other,
                }
            }
            _ => Ok(()),
        }
    }
}

/// One queue of a tap.
struct TapQueue {
    fd: OwnedFd,
}

impl TapQueue {
    /// Throws away the frames that wait.
    fn discard(&self) {
        // A tap whose other end keeps sending must not hold us: its queue is no longer than this.
        const MOST: usize = 10_000;
        let mut frame = [0; 64];
        for _ in 0..MOST {
            // A read that is too short for the frame takes it off the queue all the same.
            if rustix::io::read(&self.fd, &mut frame).is_err() {
                break;
            }
        }
    }
}

/// Frames from one queue of a tap.
pub struct TapFrames {
    queue: Arc<TapQueue>,
    batch: FrameBatch,
}

impl FrameSource for TapFrames {
    fn receive(
        &mut self,
        places: &mut [Scatter<'_>],
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<bool, PortError> {
        let mut end = Ok(true);
        self.batch.read(
            self.queue.fd.as_fd(),
            places,
            |index, result| match result {
                Ok(len) => each(index, len),
                Err(error) => match port_error(error) {
                    PortError::Again if end.is_ok() => end = Ok(false),
                    PortError::Again => {}
                    error => end = Err(error),
                },
            },
        );
        end
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.queue.fd.as_fd()
    }
}

/// Frames to one queue of a tap.
pub struct TapSink {
    queue: Arc<TapQueue>,
    batch: FrameBatch,
}

impl FrameSink for TapSink {
    fn send(&mut self, frames: &[&Buffers], each: &mut dyn FnMut(usize, Result<(), PortError>)) {
        self.batch
            .write(self.queue.fd.as_fd(), frames, |index, result| {
                each(index, result.map(drop).map_err(port_error));
            });
    }
}

/// What the errors of drivers/net/tun.c mean.
fn port_error(error: io::Error) -> PortError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => PortError::Again,
        Some(libc::EINVAL | libc::EMSGSIZE) => PortError::Malformed,
        Some(libc::EIO) => PortError::Down,
        Some(libc::EBADFD | libc::ENODEV | libc::ENXIO) => PortError::Gone,
        _ => PortError::Io(error),
    }
}

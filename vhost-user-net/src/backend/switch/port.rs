//! One port of the switch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Shared;
use super::mailbox::{Bundle, Mailbox};
use super::sink::SwitchSink;
use crate::backend::{FrameSource, Offloads, Port, PortError};
use crate::header::HeaderLen;
use crate::sys::Scatter;

/// A port: where one guest is connected.
pub struct SwitchPort {
    shared: Arc<Shared>,
    index: usize,
    mtu: Option<u16>,
    header_len: Arc<AtomicUsize>,
}

impl SwitchPort {
    pub(super) fn new(shared: Arc<Shared>, index: usize, mtu: Option<u16>) -> Self {
        Self {
            shared,
            index,
            mtu,
            header_len: Arc::new(AtomicUsize::new(HeaderLen::Modern.bytes())),
        }
    }

    fn inlet(&self) -> io::Result<&super::Inlet> {
        let inlet = self.shared.ports.get(self.index);
        inlet.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Port for SwitchPort {
    type Source = SwitchSource;
    type Sink = SwitchSink;

    fn lanes(&self) -> usize {
        self.inlet().map_or(0, |inlet| inlet.lanes.len())
    }

    fn source(&self, lane: usize) -> io::Result<SwitchSource> {
        let mailbox = self.inlet()?.lanes.get(lane).cloned();
        Ok(SwitchSource {
            mailbox: mailbox.ok_or(io::ErrorKind::NotFound)?,
            reading: Bundle::new()?,
            header_len: self.header_len.clone(),
        })
    }

    fn sink(&self, lane: usize) -> io::Result<SwitchSink> {
        Ok(SwitchSink::new(
            self.shared.clone(),
            self.index,
            lane,
            self.header_len.clone(),
        ))
    }

    /// Whatever a guest does not take unfinished is finished here.
    fn offloads(&self) -> Offloads {
        let tcp = Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN;
        Offloads::CHECKSUM | tcp | Offloads::USO
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn agree(&self, offloads: Offloads, header: HeaderLen) -> io::Result<()> {
        self.header_len.store(header.bytes(), Ordering::Release);
        self.inlet()?.agree(offloads, header);
        Ok(())
    }

    fn open_lane(&self, index: usize, open: bool) -> io::Result<()> {
        self.inlet()?.set_open(index, open);
        Ok(())
    }
}

/// Frames for one receive queue.
pub struct SwitchSource {
    mailbox: Arc<Mailbox>,
    reading: Bundle,
    header_len: Arc<AtomicUsize>,
}

impl FrameSource for SwitchSource {
    fn receive(
        &mut self,
        places: &mut [Scatter<'_>],
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<bool, PortError> {
        let header_len = self.header_len.load(Ordering::Acquire);
        for (index, place) in places.iter_mut().enumerate() {
            if self.reading.is_empty() && !self.mailbox.collect(&mut self.reading) {
                return Ok(false);
            }
            let frame = self.reading.next().unwrap_or_default();
            if header_len == HeaderLen::Modern.bytes() {
                each(index, place.fill(&[frame]));
                continue;
            }
            let (header, frame) = frame.split_at(HeaderLen::Modern.bytes().min(frame.len()));
            let header = header.get(..header_len).unwrap_or(header);
            each(index, place.fill(&[header, frame]));
        }
        Ok(true)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.mailbox.as_fd()
    }
}

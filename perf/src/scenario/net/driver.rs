//! The front end: keeps the queues busy until the time is over.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::frontend::burst::{Burst, Reaped};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};

use super::error::TurnError;
use super::frame::{self, SEQUENCE};
use super::workload::Workload;
use crate::interrupt::Interrupt;
use crate::measure::Histogram;
use crate::sys::packet_socket::Generator;

const SOON: Duration = Duration::from_secs(10);
/// Nothing may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const RING: u16 = 256;
/// Drivers hand over so many frames at a time when they are busy.
const BURST: usize = 32;
/// Rounds of the loop between two looks at the clock.
const LOOKS: u32 = 64;

/// Feature bits of virtio 1.2, 5.1.3: checksum offload, TSO4 and TSO6 in both directions, and
/// mergeable buffers.
const WANTED: u64 = 1 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << MERGEABLE;
const MERGEABLE: u32 = 15;
const HOST_TSO4: u64 = 1 << 11;
/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: u64 = 10;
/// Where Ethernet names its payload, and ICMP its message's type and code.
const ETHERTYPE: u64 = 12 + 12;
const ICMP_TYPE: u64 = 12 + 14 + 20;

/// A connection to a daemon.
pub(super) struct Driver {
    pub(super) receive: Burst,
    pub(super) transmit: Burst,
    /// Buffers still to come of the frame at hand.
    rest: u16,
    _front_end: FrontEnd,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) packets: u64,
    pub(super) elapsed: Duration,
    /// Of echoes, in nanoseconds.
    pub(super) latency: Histogram,
}

impl Driver {
    /// Connects; `content` makes the frames that are sent.
    pub(super) fn connect(
        socket: &Path,
        workload: Workload,
        content: impl Fn(u16) -> Vec<u8>,
    ) -> Result<Self, TurnError> {
        let memory = GuestMemory::with_size(64 << 20)?;
        let mut front_end = FrontEnd::connect(socket, SOON)?;
        let rings = features::VERSION_1 | features::EVENT_IDX | features::INDIRECT_DESC;
        let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        let agreed = front_end.handshake(WANTED | rings, protocol)?;
        if agreed.features & 1 << MERGEABLE == 0 {
            return Err(TurnError::Lacks("mergeable buffers"));
        }
        if workload.is_tso() && agreed.features & HOST_TSO4 == 0 {
            return Err(TurnError::Lacks("TSO4"));
        }
        front_end.set_mem_table(&memory)?;
        let buffer = if workload.is_tso() { 4096 } else { 2048 };
        let receive = front_end.lay_out_queue(0, RING)?;
        front_end.attach_queue(&receive, 0)?;
        let transmit = front_end.lay_out_queue(1, RING)?;
        front_end.attach_queue(&transmit, 0)?;
        Ok(Self {
            receive: Burst::receive(receive, buffer)?,
            transmit: Burst::transmit(transmit, content)?,
            rest: 0,
            _front_end: front_end,
        })
    }

    /// Sends for that long.
    pub(super) fn send(&mut self, time: Duration, stop: &Interrupt) -> Result<Load, TurnError> {
        let mut clock = Clock::start(time, stop);
        while clock.runs()? {
            clock.load.packets += self.push()?;
        }
        Ok(clock.end())
    }

    /// Sends to another port's driver for that long; what arrives counts.
    pub(super) fn send_to(
        &mut self,
        other: &mut Self,
        time: Duration,
        stop: &Interrupt,
    ) -> Result<Load, TurnError> {
        let mut clock = Clock::start(time, stop);
        while clock.runs()? {
            self.push()?;
            clock.load.packets += other.take()?;
        }
        Ok(clock.end())
    }

    /// Receives for that long what `generator` sends.
    pub(super) fn receive(
        &mut self,
        generator: &Generator,
        time: Duration,
        stop: &Interrupt,
    ) -> Result<Load, TurnError> {
        let mut clock = Clock::start(time, stop);
        while clock.runs()? {
            generator.send();
            clock.load.packets += self.take()?;
        }
        Ok(clock.end())
    }

    /// Pings for that long.
    pub(super) fn echo(
        &mut self,
        depth: u16,
        time: Duration,
        stop: &Interrupt,
    ) -> Result<Load, TurnError> {
        let mut sent: Vec<Option<Instant>> = vec![None; usize::from(RING)];
        let mut under_way = 0;
        let mut clock = Clock::start(time, stop);
        while clock.runs()? {
            self.transmit.reap(|_, _| ())?;
            while under_way < depth {
                let Some(slot) = self.transmit.next() else {
                    break;
                };
                sent[usize::from(slot)] = Some(Instant::now());
                under_way += u16::try_from(self.transmit.offer(1)?).unwrap_or(1);
            }
            self.receive.offer(usize::MAX)?;
            let load = &mut clock.load;
            self.receive.reap(|burst, Reaped { slot, .. }| {
                let reply =
                    burst.word(slot, ETHERTYPE) == 0x0008 && burst.word(slot, ICMP_TYPE) == 0;
                let number = usize::from(burst.word(slot, SEQUENCE));
                let Some(since) = sent
                    .get_mut(number)
                    .and_then(Option::take)
                    .filter(|_| reply)
                else {
                    return;
                };
                let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                load.latency.record(took);
                load.packets += 1;
                under_way -= 1;
            })?;
        }
        Ok(clock.end())
    }

    /// Sends a single frame, for a switch to learn where we are.
    pub(super) fn show(&mut self) -> Result<(), TurnError> {
        self.transmit.offer(1)?;
        let deadline = Instant::now() + PATIENCE;
        while self.transmit.reap(|_, _| ())? == 0 {
            if Instant::now() > deadline {
                return Err(TurnError::Stuck(PATIENCE));
            }
        }
        Ok(())
    }

    /// Takes back what was sent and sends more; returns how many came back.
    fn push(&mut self) -> Result<u64, TurnError> {
        let sent = self.transmit.reap(|_, _| ())?;
        if self.transmit.idle() >= BURST {
            self.transmit.offer(usize::MAX)?;
        }
        Ok(sent as u64)
    }

    /// Takes what was received and gives the buffers back; returns how many frames it was.
    fn take(&mut self) -> Result<u64, TurnError> {
        let (mut frames, mut rest) = (0, self.rest);
        self.receive.reap(|burst, Reaped { slot, .. }| {
            if rest == 0 {
                frames += 1;
                rest = burst.word(slot, NUM_BUFFERS).max(1);
            }
            rest -= 1;
        })?;
        self.rest = rest;
        if self.receive.idle() >= BURST {
            self.receive.offer(usize::MAX)?;
        }
        Ok(frames)
    }
}

/// The frames of a load through tap `tap`.
pub(super) fn frames(workload: Workload, tap: u8) -> impl Fn(u16) -> Vec<u8> {
    move |slot| frame::frame(workload, slot, tap)
}

/// Ends a load when its time is over, or when nothing passes any more.
struct Clock<'a> {
    load: Load,
    started: Instant,
    deadline: Instant,
    looks: u32,
    progress: (u64, Instant),
    stop: &'a Interrupt,
}

impl<'a> Clock<'a> {
    fn start(time: Duration, stop: &'a Interrupt) -> Self {
        let started = Instant::now();
        Self {
            load: Load::default(),
            started,
            deadline: started + time,
            looks: 0,
            progress: (0, started),
            stop,
        }
    }

    fn runs(&mut self) -> Result<bool, TurnError> {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS) {
            std::hint::spin_loop();
            return Ok(true);
        }
        self.stop.check()?;
        let now = Instant::now();
        if self.progress.0 != self.load.packets {
            self.progress = (self.load.packets, now);
        } else if now - self.progress.1 > PATIENCE {
            return Err(TurnError::Stuck(PATIENCE));
        }
        // A turn in which nothing passed has no figures.
        Ok(now < self.deadline || self.load.packets == 0)
    }

    fn end(mut self) -> Load {
        self.load.elapsed = self.started.elapsed();
        self.load
    }
}

//! Guest → host.

use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::io::Errno;
use vhost_daemon::queue::Chain;
use vhost_daemon::sys::Buffers;
use vhost_daemon::worker::{Context, WatchId};

use crate::connection::{Connection, Outbound, due};
use crate::metrics::Counts;
use crate::packet::{BOTH, Fault, HEADER, Header, Op, Packet, RECEIVE, SEND};
use crate::switchboard::{Side, Switchboard};
use crate::table::Entry;

/// Most events taken with one system call.
const MOST_EVENTS: usize = 64;

/// The worker of the transmit queue: bytes go straight from guest memory to the sockets. What is to be
/// answered is posted to the receive queue's worker.
pub struct Transmit {
    switchboard: Arc<Switchboard>,
    counts: Counts,
    departures: Option<WatchId>,
    emptied: Option<WatchId>,
    /// Epoll may know of sockets with room.
    look: bool,
    events: Vec<epoll::Event>,
}

impl Transmit {
    /// To the programs of `switchboard`.
    pub fn new(switchboard: Arc<Switchboard>, counts: Counts) -> Self {
        Self {
            switchboard,
            counts,
            departures: None,
            emptied: None,
            look: true,
            events: Vec::with_capacity(MOST_EVENTS),
        }
    }

    pub(super) fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        let index = cx.queue().next_avail();
        self.switchboard.started(Side::Transmit, index);
        self.departures = Some(cx.watch(self.switchboard.departures())?);
        self.emptied = Some(cx.watch(&self.switchboard.mailbox.emptied)?);
        Ok(())
    }

    pub(super) fn ready(&mut self, watch: WatchId) {
        if self.departures == Some(watch) {
            self.look = true;
        } else if self.emptied == Some(watch) {
            self.switchboard.mailbox.emptied.clear();
        }
    }

    /// A guest that does not take its answers asks no more.
    pub(super) fn wants_packets(&self) -> bool {
        self.switchboard.mailbox.has_room()
    }

    pub(super) fn stop(&mut self, cx: &mut Context<()>) {
        let index = cx.queue().next_avail();
        self.switchboard.stopped(Side::Transmit, index);
    }

    /// Takes what the guest made available, a batch at most; returns how many packets.
    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        if std::mem::take(&mut self.look) {
            self.look_around(cx);
        }
        let mut taken = 0;
        while taken < Context::<()>::BATCH
            && self.wants_packets()
            && let Some((token, chain)) = cx.pop()
        {
            taken += 1;
            self.take(cx, chain);
            cx.complete(token, 0);
        }
        self.switchboard.mailbox.deliver();
        taken
    }

    fn take(&mut self, cx: &mut Context<()>, chain: Chain) {
        let mut payload = chain.readable;
        if !chain.writable.is_empty() {
            return cx.guest_fault(&Fault::Writable);
        }
        let Some(front) = payload.split_front(HEADER) else {
            return cx.guest_fault(&Fault::TooShort);
        };
        // Once: the guest may change it.
        let mut bytes = [0; HEADER];
        front.read_at(0, &mut bytes);
        let header = Header::from_bytes(&bytes);
        let parsed = Packet::parse(&header, self.switchboard.line().cid, payload.len());
        let acted = parsed.and_then(|packet| {
            payload.truncate(packet.len);
            self.act(cx, &packet, &header, payload)
        });
        if let Err(fault) = acted {
            cx.guest_fault(&fault);
            if fault.is_answered() {
                self.reset(&header);
                // Who is told that the connection is over has none.
                let known = header
                    .connection()
                    .and_then(|key| self.switchboard.find(key));
                if let Some(connection) = known {
                    self.switchboard.remove(&connection);
                }
            }
        }
    }

    /// Answers with a reset; not a reset, or there would be no end.
    fn reset(&self, header: &Header) {
        if header.op != Op::Reset as u16 {
            self.switchboard.mailbox.reset(header.reset());
        }
    }

    fn act(
        &mut self,
        cx: &mut Context<()>,
        packet: &Packet,
        header: &Header,
        payload: Buffers,
    ) -> Result<(), Fault> {
        match self.switchboard.find(packet.key) {
            Some(connection) => return self.act_on(cx, &connection, packet, payload),
            None if packet.op == Op::Request => self.open(cx, packet, header),
            None => self.reset(header),
        }
        Ok(())
    }

    fn act_on(
        &mut self,
        cx: &mut Context<()>,
        connection: &Arc<Connection>,
        packet: &Packet,
        payload: Buffers,
    ) -> Result<(), Fault> {
        if connection.learn_credit(packet.credit) {
            self.post(connection, due::READ);
        }
        let mut out = connection.outbound();
        let done = match packet.op {
            Op::Response if !out.accepted => {
                self.accept(connection, &mut out);
                Ok(())
            }
            Op::Reset => {
                self.counts.resets.add(1);
                self.give_up(connection, &mut out);
                return Ok(());
            }
            Op::Data if out.accepted && out.shut & SEND == 0 => {
                self.counts.packets.add(1);
                cx.queue().metrics().bytes_out.add(payload.len() as u64);
                connection.deliver(&mut out, payload)
            }
            Op::Shutdown if out.accepted => {
                out.shut |= packet.flags & BOTH;
                Ok(())
            }
            Op::CreditUpdate => Ok(()),
            Op::CreditRequest => {
                self.post(connection, due::CREDIT);
                Ok(())
            }
            op => Err(Fault::OutOfPlace(op)),
        };
        if done.is_ok() {
            self.settle(cx, connection, &mut out);
        }
        done
    }

    fn post(&self, connection: &Arc<Connection>, bits: u8) {
        self.switchboard.mailbox.post(connection, bits);
    }

    /// The guest wants to be connected to a port of the host's.
    fn open(&mut self, cx: &mut Context<()>, packet: &Packet, header: &Header) {
        self.counts.begun.add(1);
        match self.switchboard.open(packet.key) {
            Ok(connection) => {
                connection.learn_credit(packet.credit);
                self.post(&connection, due::RESPONSE | due::READ);
            }
            Err(error) => {
                self.reset(header);
                let port = packet.key.host_port;
                match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::CONNREFUSED) => {
                        self.counts.refused.add(1);
                        tracing::debug!(port, "nobody listens on the host's port");
                    }
                    Some(Errno::NOBUFS) => {
                        self.counts.turned_away.add(1);
                        cx.backend_error("a connection is turned away", &error);
                    }
                    _ => {
                        self.counts.refused.add(1);
                        cx.backend_error("the guest cannot be connected", &error);
                    }
                }
            }
        }
    }

    /// The guest grants what a program has asked for.
    fn accept(&self, connection: &Arc<Connection>, out: &mut Outbound) {
        out.accepted = true;
        let line = format!("OK {}\n", connection.key.host_port);
        // Nothing was sent before, so there is room; a program that has gone is found out by reading.
        let _ = (&connection.socket).write(line.as_bytes());
        self.post(connection, due::READ);
    }

    /// The guest refuses a connection or has forgotten it. What it has sent before is the program's all
    /// the same.
    fn give_up(&self, connection: &Arc<Connection>, out: &mut Outbound) {
        if !out.accepted {
            self.counts.refused.add(1);
        }
        if out.behind() > 0 {
            self.switchboard.forget(connection, out);
        } else {
            self.switchboard.remove(connection);
        }
    }

    /// Does what follows from what the guest has said and what the socket has taken.
    fn settle(&self, cx: &mut Context<()>, connection: &Arc<Connection>, out: &mut Outbound) {
        if out.deaf && !std::mem::replace(&mut out.told, true) {
            self.post(connection, due::DEAF);
        }
        if out.shut & RECEIVE != 0 {
            // What the program still had for the guest goes with the socket.
            connection.inbound().ended = true;
            let _ = connection.socket.shutdown(Shutdown::Read);
        }
        if out.behind() > 0 {
            self.await_room(cx, connection, out);
        } else if out.shut == BOTH || out.forgotten {
            self.switchboard.remove(connection);
            if !out.forgotten {
                self.post(connection, due::RESET);
            }
            return;
        } else if out.shut & SEND != 0 && !std::mem::replace(&mut out.finished, true) {
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
        if connection.owes_credit() && !out.forgotten {
            self.post(connection, due::CREDIT);
        }
    }

    fn await_room(&self, cx: &mut Context<()>, connection: &Arc<Connection>, out: &mut Outbound) {
        if out.waiting {
            return;
        }
        self.counts.held_up.add(1);
        match self.switchboard.await_room(connection, out.watched) {
            Ok(()) => (out.watched, out.waiting) = (true, true),
            Err(error) => {
                cx.backend_error("a program cannot be waited for", &error);
                self.switchboard.remove(connection);
                self.post(connection, due::RESET);
            }
        }
    }

    /// Asks epoll which sockets have room, and passes on what waits for it.
    fn look_around(&mut self, cx: &mut Context<()>) {
        let now = Timespec::default();
        loop {
            let mut events = std::mem::take(&mut self.events);
            events.clear();
            let waited = epoll::wait(
                self.switchboard.departures(),
                spare_capacity(&mut events),
                Some(&now),
            );
            for event in &events {
                if let Some(Entry::Connection(connection)) = self.switchboard.get(event.data.u64())
                {
                    let mut out = connection.outbound();
                    out.waiting = false;
                    connection.flush(&mut out);
                    self.settle(cx, &connection, &mut out);
                }
            }
            let more = events.len() >= MOST_EVENTS;
            self.events = events;
            if let Err(error) = waited {
                cx.backend_error("sockets cannot be waited for", &error.into());
            }
            if !more {
                return;
            }
        }
    }
}

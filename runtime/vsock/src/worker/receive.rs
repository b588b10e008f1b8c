//! Host → guest.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use rustix::event::epoll;
use vhost_daemon::worker::{Context, WatchId};

use super::held::HeldBuffers;
use crate::connection::{Connection, due};
use crate::mailbox::{Answer, Post};
use crate::metrics::Counts;
use crate::packet::{BOTH, Op, RECEIVE, SEND};
use crate::switchboard::{Side, Switchboard};
use crate::sys;

/// Most bytes that one system call reads from one socket, before it is the next one's turn.
const MOST: usize = 64 << 10;
/// Most buffers that they go to: those of Linux' driver have 4 KiB.
const MOST_BUFFERS: usize = 17;
/// Most events taken with one system call.
pub(super) const MOST_EVENTS: usize = 64;

/// The worker of the receive queue: lets programs in, reads their bytes straight into guest memory, and
/// sends what the transmit queue's worker has to answer.
pub struct Receive {
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) counts: Counts,
    held: HeldBuffers,
    /// Packets without bytes, oldest first. They go before all that is to be read.
    answers: VecDeque<Answer>,
    /// Connections whose sockets may have bytes, each once.
    ready: VecDeque<Arc<Connection>>,
    arrivals: Option<WatchId>,
    mail: Option<WatchId>,
    /// Epoll may have something to tell.
    pub(super) look: bool,
    /// Programs could not be let in: they are still there in the next turn.
    pub(super) look_again: bool,
    /// The guest has too few buffers for what there is.
    lacking: bool,
    pub(super) events: Vec<epoll::Event>,
}

impl Receive {
    /// For the programs of `switchboard`.
    pub fn new(switchboard: Arc<Switchboard>, counts: Counts) -> Self {
        Self {
            switchboard,
            counts,
            held: HeldBuffers::default(),
            answers: VecDeque::new(),
            ready: VecDeque::new(),
            arrivals: None,
            mail: None,
            look: true,
            look_again: false,
            lacking: false,
            events: Vec::with_capacity(MOST_EVENTS),
        }
    }

    pub(super) fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        let index = cx.queue().next_avail();
        self.switchboard.started(Side::Receive, index);
        self.mail = Some(cx.watch(&self.switchboard.mailbox.arrived)?);
        self.arrivals = Some(cx.watch(self.switchboard.arrivals())?);
        self.answers = self.switchboard.mailbox.take_kept();
        // What an earlier worker knew of their sockets is lost: try all.
        for connection in self.switchboard.connections() {
            connection.inbound().queued = false;
            self.enqueue(&connection);
        }
        Ok(())
    }

    pub(super) fn ready(&mut self, watch: WatchId) {
        if self.arrivals == Some(watch) {
            self.look = true;
        } else if self.mail == Some(watch) {
            self.switchboard.mailbox.arrived.clear();
        }
    }

    pub(super) fn wants_buffers(&self) -> bool {
        self.lacking
    }

    pub(super) fn stop(&mut self, cx: &mut Context<()>) {
        self.held.give_back(cx);
        let answers = std::mem::take(&mut self.answers);
        self.switchboard.mailbox.keep(answers);
        let index = cx.queue().next_avail();
        self.switchboard.stopped(Side::Receive, index);
    }

    /// Sends a batch of packets or so; returns how many.
    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        if std::mem::take(&mut self.look) | std::mem::take(&mut self.look_again) {
            self.look_around(cx);
        }
        self.lacking = false;
        let mut sent = 0;
        while sent < Context::<()>::BATCH && !self.lacking {
            // Posts that turn out to need nothing must not hide those behind them.
            while self.answers.is_empty() && self.collect() {}
            if !self.answers.is_empty() {
                sent += self.answer(cx);
            } else if let Some(connection) = self.ready.pop_front() {
                sent += self.pass(cx, connection);
            } else {
                break;
            }
        }
        match self.look {
            true => sent.max(Context::<()>::BATCH),
            false => sent,
        }
    }

    /// Takes the next post; whether there was one.
    fn collect(&mut self) -> bool {
        match self.switchboard.mailbox.take() {
            None => return false,
            Some(Post::Reset(header)) => {
                self.counts.resets.add(1);
                self.answers.push_back(Answer::Bare(header));
            }
            Some(Post::Due(connection)) => self.collect_due(&connection),
        }
        true
    }

    fn collect_due(&mut self, connection: &Arc<Connection>) {
        let bits = connection.take_due();
        if bits & due::RESPONSE != 0 {
            self.push(connection, Op::Response, 0);
        }
        if bits & due::READ != 0 {
            let mut inbound = connection.inbound();
            (inbound.open, inbound.requested) = (!inbound.ended, false);
            drop(inbound);
            self.enqueue(connection);
        }
        if bits & due::CREDIT != 0 {
            self.counts.credit_updates.add(1);
            self.push(connection, Op::CreditUpdate, 0);
        }
        if bits & due::DEAF != 0 {
            self.say(connection, RECEIVE);
        }
        if bits & due::RESET != 0 {
            self.counts.resets.add(1);
            self.push(connection, Op::Reset, 0);
        }
    }

    pub(super) fn push(&mut self, connection: &Arc<Connection>, op: Op, flags: u32) {
        let answer = Answer::About(connection.clone(), op, flags);
        self.answers.push_back(answer);
    }

    /// Forgets a request that the guest has not been sent; whether there was one.
    pub(super) fn take_back_request(&mut self, connection: &Connection) -> bool {
        let requested = |answer: &Answer| match answer {
            Answer::About(it, Op::Request, _) => Some(it.id),
            _ => None,
        };
        let mut answers = self.answers.iter();
        let place = answers.position(|answer| requested(answer) == Some(connection.id));
        place.is_some_and(|place| self.answers.remove(place).is_some())
    }

    /// Tells the guest what the host does no more.
    pub(super) fn say(&mut self, connection: &Arc<Connection>, flags: u32) {
        let mut inbound = connection.inbound();
        if inbound.said | flags != inbound.said {
            inbound.said |= flags;
            let said = inbound.said;
            drop(inbound);
            self.push(connection, Op::Shutdown, said);
        }
    }

    pub(super) fn enqueue(&mut self, connection: &Arc<Connection>) {
        let mut inbound = connection.inbound();
        if inbound.open && !inbound.ended && !inbound.queued {
            inbound.queued = true;
            drop(inbound);
            self.ready.push_back(connection.clone());
        }
    }

    /// Sends the oldest answer; returns how many packets.
    fn answer(&mut self, cx: &mut Context<()>) -> usize {
        if !self.held.gather(cx, 1, 1) {
            self.lacking = true;
            return 0;
        }
        let Some(answer) = self.answers.pop_front() else {
            return 0;
        };
        let cid = self.switchboard.line().cid;
        self.held.fill(cx, 0, |_| match &answer {
            Answer::About(connection, op, flags) => connection.header(cid, *op, *flags, 0),
            Answer::Bare(header) => *header,
        });
        1
    }

    /// Reads from one socket into guest memory; returns how many packets that made.
    fn pass(&mut self, cx: &mut Context<()>, connection: Arc<Connection>) -> usize {
        let mut inbound = connection.inbound();
        inbound.queued = false;
        if !inbound.open || inbound.ended {
            return 0;
        }
        let credit = connection.credit(inbound.sent);
        if credit == 0 {
            self.counts.held_up.add(1);
            return 0;
        }
        let most = credit.min(MOST);
        if !self.held.gather(cx, MOST_BUFFERS, most) {
            self.lacking = true;
            inbound.queued = true;
            drop(inbound);
            self.ready.push_front(connection);
            return 0;
        }
        let read = sys::receive(&connection.socket, self.held.payloads(), most);
        let (count, more) = match read {
            Ok(0) => (0, false),
            // There may be more, and perhaps others have waited longer.
            Ok(count) => (count, true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, true),
            Err(_) => {
                connection.hang_up();
                (0, false)
            }
        };
        let sent = u32::try_from(count).unwrap_or(u32::MAX);
        inbound.sent = inbound.sent.wrapping_add(sent);
        (inbound.queued, inbound.ended) = (more, !more);
        drop(inbound);
        let packets = self.hand_over(cx, &connection, count);
        match more {
            true => self.ready.push_back(connection),
            false => self.say_end(&connection),
        }
        packets
    }

    /// Gives the guest the `count` bytes that lie in the oldest buffers; returns how many packets.
    fn hand_over(&mut self, cx: &mut Context<()>, connection: &Connection, count: usize) -> usize {
        let cid = self.switchboard.line().cid;
        let header = |len| connection.header(cid, Op::Data, 0, len);
        let (mut left, mut packets) = (count, 0);
        while left > 0 {
            match self.held.fill(cx, left, header) {
                0 => break,
                part => left -= part,
            }
            packets += 1;
        }
        self.counts.packets.add(packets);
        cx.queue().metrics().bytes_in.add(count as u64);
        usize::try_from(packets).unwrap_or(usize::MAX)
    }

    /// The program sends no more, and maybe receives no more.
    fn say_end(&mut self, connection: &Arc<Connection>) {
        let flags = match connection.is_hung_up() {
            true => BOTH,
            false => SEND,
        };
        self.say(connection, flags);
    }
}

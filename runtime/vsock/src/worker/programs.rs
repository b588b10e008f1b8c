//! What the receive queue's worker hears from programs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use vhost_daemon::worker::Context;

use super::Receive;
use super::receive::MOST_EVENTS;
use crate::connection::Connection;
use crate::hybrid::{self, Greeting};
use crate::packet::{BOTH, Op};
use crate::switchboard::LISTENER;
use crate::table::Entry;

/// Most programs let in before the ring is looked at again.
const MOST_CLIENTS: usize = 64;

impl Receive {
    /// Asks epoll which programs have something to say.
    pub(super) fn look_around(&mut self, cx: &mut Context<()>) {
        let now = Timespec::default();
        loop {
            let mut events = std::mem::take(&mut self.events);
            events.clear();
            let waited = epoll::wait(
                self.switchboard.arrivals(),
                spare_capacity(&mut events),
                Some(&now),
            );
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.let_in(cx),
                    id => self.arrived(id, event.flags),
                }
            }
            let more = events.len() >= MOST_EVENTS;
            self.events = events;
            if let Err(error) = waited {
                cx.backend_error("programs cannot be waited for", &error.into());
            }
            if !more || self.look {
                return;
            }
        }
    }

    /// Lets programs in.
    fn let_in(&mut self, cx: &mut Context<()>) {
        /// Until descriptors, most likely, are no longer short.
        const PAUSE: Duration = Duration::from_millis(100);
        for _ in 0..MOST_CLIENTS {
            let admitted = match self.switchboard.listener().accept() {
                Ok((client, _)) => self.switchboard.admit(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => Err(error),
            };
            match admitted {
                Ok(true) => {}
                Ok(false) => {
                    self.counts.turned_away.add(1);
                    let error = io::Error::other("as many connections as --connections allows");
                    cx.backend_error("a program is turned away", &error);
                }
                Err(error) => {
                    cx.backend_error("a program cannot be let in", &error);
                    cx.wake_after(PAUSE);
                    self.look_again = true;
                    return;
                }
            }
        }
        self.look = true;
    }

    /// Something has come from a program.
    fn arrived(&mut self, id: u64, flags: EventFlags) {
        match self.switchboard.get(id) {
            // It has ended meanwhile.
            None => {}
            Some(Entry::Client(client)) => {
                let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                let no_more = gone || flags.contains(EventFlags::RDHUP);
                match hybrid::greet(&client) {
                    Greeting::Port(port) if !gone => {
                        drop(client);
                        self.request(id, port);
                    }
                    Greeting::Incomplete if !no_more => {}
                    Greeting::Over(Some(bad)) => {
                        tracing::debug!(%bad, "a program is turned away");
                        self.switchboard.dismiss(id);
                    }
                    _ => self.switchboard.dismiss(id),
                }
            }
            Some(Entry::Connection(connection)) => self.heard_of(&connection, flags),
        }
    }

    /// Asks the guest for a connection.
    fn request(&mut self, id: u64, port: u32) {
        if let Some(connection) = self.switchboard.promote(id, port) {
            self.counts.begun.add(1);
            connection.inbound().requested = true;
            self.push(&connection, Op::Request, 0);
        }
    }

    fn heard_of(&mut self, connection: &Arc<Connection>, flags: EventFlags) {
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            connection.hang_up();
        }
        let inbound = connection.inbound();
        let (requested, ended, open) = (inbound.requested, inbound.ended, inbound.open);
        drop(inbound);
        // It may have had its answer, spoken and gone before we hear of any of that.
        let unanswered = requested && !connection.outbound().accepted;
        if unanswered && connection.is_hung_up() {
            // It did not wait for the guest's answer, or for the guest to be asked.
            self.switchboard.remove(connection);
            if !self.take_back_request(connection) {
                self.push(connection, Op::Reset, 0);
            }
        } else if open && ended && connection.is_hung_up() {
            self.say(connection, BOTH);
        } else {
            self.enqueue(connection);
        }
    }
}

//! What the transmit queue's thread has for the receive queue's: answers to the guest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_daemon::wakeup::Wakeup;

use crate::connection::Connection;
use crate::packet::{Header, Op};

/// Connections about which something is due, each once, and resets of what is no connection.
#[derive(Debug)]
pub struct Mailbox {
    posts: Mutex<Posts>,
    /// Connections that wait at most, those that are over among them.
    most_connections: usize,
    posted: AtomicBool,
    /// Readable when something was posted.
    pub arrived: Wakeup,
    /// Readable when there is room again.
    pub emptied: Wakeup,
}

#[derive(Debug, Default)]
struct Posts {
    connections: VecDeque<Arc<Connection>>,
    resets: VecDeque<Header>,
    unsent: VecDeque<Answer>,
}

/// A packet without bytes, to be sent to the guest.
#[derive(Debug)]
pub enum Answer {
    /// About a connection: operation and flags. The rest of its header is what holds when it goes.
    About(Arc<Connection>, Op, u32),
    /// About none.
    Bare(Header),
}

/// What is taken from the mailbox.
pub enum Post {
    /// Something is due.
    Due(Arc<Connection>),
    /// A reset to send.
    Reset(Header),
}

impl Mailbox {
    /// A guest that does not take its resets is not listened to beyond these.
    const MOST_RESETS: usize = 256;

    /// An empty one, for `connections` at once.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new(connections: usize) -> std::io::Result<Self> {
        Ok(Self {
            posts: Mutex::default(),
            most_connections: connections + Self::MOST_RESETS,
            posted: AtomicBool::new(false),
            arrived: Wakeup::new()?,
            emptied: Wakeup::new()?,
        })
    }

    /// Something is due about a connection.
    pub fn post(&self, connection: &Arc<Connection>, bits: u8) {
        if connection.make_due(bits) {
            self.posts().connections.push_back(connection.clone());
            self.posted.store(true, Ordering::Release);
        }
    }

    /// A reset is due.
    pub fn reset(&self, header: Header) {
        self.posts().resets.push_back(header);
        self.posted.store(true, Ordering::Release);
    }

    /// Whether more may be posted. A connection that the guest has ended waits here, with its descriptor,
    /// until the receiver has seen it.
    pub fn has_room(&self) -> bool {
        let posts = self.posts();
        posts.resets.len() < Self::MOST_RESETS && posts.connections.len() < self.most_connections
    }

    /// Wakes the receiver if something was posted since the last call.
    pub fn deliver(&self) {
        if self.posted.load(Ordering::Acquire) && self.posted.swap(false, Ordering::AcqRel) {
            self.arrived.wake();
        }
    }

    /// The next post: resets first.
    pub fn take(&self) -> Option<Post> {
        let mut posts = self.posts();
        if let Some(reset) = posts.resets.pop_front() {
            if posts.resets.len() == Self::MOST_RESETS / 2 {
                self.emptied.wake();
            }
            return Some(Post::Reset(reset));
        }
        let due = posts.connections.pop_front()?;
        if posts.connections.len() == self.most_connections / 2 {
            self.emptied.wake();
        }
        Some(Post::Due(due))
    }

    /// Keeps what the receiver had taken and could not send before it stopped.
    pub fn keep(&self, unsent: VecDeque<Answer>) {
        self.posts().unsent = unsent;
    }

    /// What was kept.
    pub fn take_kept(&self) -> VecDeque<Answer> {
        std::mem::take(&mut self.posts().unsent)
    }

    /// Throws all away: there is another guest.
    pub fn clear(&self) {
        *self.posts() = Posts::default();
        self.emptied.wake();
    }

    fn posts(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What the threads of a device share: the table of connections, and the ways to wake each other.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use vhost_daemon::metrics::{Counter, Metrics};
use vhost_daemon::wakeup::Wakeup;

use crate::connection::{Connection, Outbound};
use crate::farewell;
use crate::hybrid;
use crate::mailbox::Mailbox;
use crate::packet::Key;
use crate::table::{Entry, Table};

/// What a device is made of, as the options say.
#[derive(Debug)]
pub struct Line {
    /// The guest's context id.
    pub cid: u64,
    /// Where the host's programs connect; the base of the sockets that the guest connects to.
    pub path: PathBuf,
    /// Bytes that may wait for each program.
    pub room: u32,
    /// Most connections.
    pub connections: usize,
}

/// The number that epoll knows the listener by.
pub const LISTENER: u64 = 0;

/// The queue whose thread asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Host → guest.
    Receive,
    /// Guest → host.
    Transmit,
}

/// See the module.
pub struct Switchboard {
    line: Line,
    listener: UnixListener,
    /// The receive queue's thread waits here for programs and for their bytes.
    arrivals: OwnedFd,
    /// The transmit queue's thread waits here for room in sockets.
    departures: OwnedFd,
    table: Mutex<Table>,
    /// Transmit → receive.
    pub mailbox: Mailbox,
    /// The guest has to hear that connections were lost.
    pub reset: ResetEvent,
    /// Where the data queues stopped, in this front end's time.
    left_at: Mutex<Positions>,
    open: Arc<Counter>,
}

/// Indexes of available rings.
#[derive(Default)]
struct Positions {
    /// Of each data queue.
    at: [Option<u16>; 2],
    /// The reset for this driver was required by the one queue, and is not by the other once more.
    told: bool,
}

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, to be sent or not.
pub struct ResetEvent {
    due: AtomicBool,
    /// Readable when it became due.
    pub wakeup: Wakeup,
}

impl ResetEvent {
    fn require(&self) {
        self.due.store(true, Ordering::Release);
        self.wakeup.wake();
    }

    /// Whether it is to be sent.
    pub fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire)
    }

    /// It has been sent.
    pub fn done(&self) {
        self.due.store(false, Ordering::Release);
    }
}

impl Switchboard {
    /// With the programs that connect to `listener`.
    ///
    /// # Errors
    /// When descriptors are short.
    pub fn new(line: Line, listener: UnixListener, metrics: &Metrics) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // While the guest does not run nobody lets them in: they wait there.
        let waiting = i32::try_from(line.connections).unwrap_or(i32::MAX);
        rustix::net::listen(&listener, waiting)?;
        let arrivals = epoll::create(CreateFlags::CLOEXEC)?;
        // Level-triggered: whom it was not possible to let in now is let in later.
        epoll::add(
            &arrivals,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        let (limit, room) = (line.connections, line.room);
        Ok(Self {
            line,
            listener,
            arrivals,
            departures: epoll::create(CreateFlags::CLOEXEC)?,
            table: Mutex::new(Table::new(limit, room, LISTENER + 1)),
            mailbox: Mailbox::new(limit)?,
            reset: ResetEvent {
                due: AtomicBool::new(false),
                wakeup: Wakeup::new()?,
            },
            left_at: Mutex::default(),
            open: metrics.counter("vsock_connections", "Connections and clients now", ""),
        })
    }

    /// As the options say.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Where programs connect.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The epoll set of what comes from programs.
    pub fn arrivals(&self) -> &OwnedFd {
        &self.arrivals
    }

    /// The epoll set of sockets that have no room.
    pub fn departures(&self) -> &OwnedFd {
        &self.departures
    }

    /// Takes a program in; `false` when there are as many as may be, and it is turned away.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn admit(&self, client: UnixStream) -> io::Result<bool> {
        client.set_nonblocking(true)?;
        let mut table = self.table();
        let Some((id, client)) = table.admit(client) else {
            return Ok(false);
        };
        let watched = self.watch_arrivals(id, &client);
        if watched.is_err() {
            table.dismiss(id);
        }
        self.show(&table);
        watched.map(|()| true)
    }

    /// Joins the program `id` to a port of the guest's.
    pub fn promote(&self, id: u64, guest_port: u32) -> Option<Arc<Connection>> {
        self.table().promote(id, guest_port)
    }

    /// Lets a program go that was not joined.
    pub fn dismiss(&self, id: u64) {
        let mut table = self.table();
        table.dismiss(id);
        self.show(&table);
    }

    /// Connects the guest to the host's port.
    ///
    /// # Errors
    /// When nobody listens there, or there are as many connections as may be (`ENOBUFS`).
    pub fn open(&self, key: Key) -> io::Result<Arc<Connection>> {
        if !self.table().has_room() {
            return Err(Errno::NOBUFS.into());
        }
        let path = hybrid::path_of(&self.line.path, key.host_port);
        let socket = hybrid::connect(&path)?;
        let mut table = self.table();
        let connection = table.open(key, socket).ok_or(Errno::NOBUFS)?;
        // Before it is watched: what comes then is for the receive queue's thread.
        connection.outbound().accepted = true;
        let watched = self.watch_arrivals(connection.id, &connection.socket);
        if watched.is_err() {
            table.remove(&connection);
        }
        self.show(&table);
        watched.map(|()| connection)
    }

    /// Edge-triggered: who is told reads until there is no more, or remembers that there is.
    fn watch_arrivals(&self, id: u64, socket: &UnixStream) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(
            &self.arrivals,
            socket,
            EventData::new_u64(id),
            flags,
        )?)
    }

    /// Has [`departures`](Self::departures) tell, once, when the socket has room.
    ///
    /// # Errors
    /// When memory is short.
    pub fn await_room(&self, connection: &Connection, known: bool) -> io::Result<()> {
        let flags = EventFlags::OUT | EventFlags::ONESHOT;
        let data = EventData::new_u64(connection.id);
        let tell = if known { epoll::modify } else { epoll::add };
        Ok(tell(&self.departures, &connection.socket, data, flags)?)
    }

    /// The connection of these ports.
    pub fn find(&self, key: Key) -> Option<Arc<Connection>> {
        self.table().find(key)
    }

    /// What has this number.
    pub fn get(&self, id: u64) -> Option<Entry> {
        self.table().get(id)
    }

    /// All connections.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.table().connections()
    }

    /// The guest has forgotten the connection. Its program has not had all of its bytes, and stays until
    /// then.
    pub fn forget(&self, connection: &Connection, out: &mut Outbound) {
        out.forgotten = true;
        self.table().forget(connection);
        let mut inbound = connection.inbound();
        (inbound.open, inbound.ended) = (false, true);
    }

    /// Ends a connection.
    pub fn remove(&self, connection: &Connection) {
        let mut table = self.table();
        table.remove(connection);
        self.show(&table);
        drop(table);
        connection.close();
    }

    /// Ends all connections and forgets where queues stopped: the front end has gone, and no queue runs.
    /// Programs get a moment to take what the guest had sent.
    pub fn clear(&self) {
        *self.left_at() = Positions::default();
        farewell::pass_on_rest(&self.connections());
        self.lose_all();
        let mut table = self.table();
        let stuck = table.clear();
        self.show(&table);
        drop(table);
        for connection in stuck {
            connection.close();
        }
        self.reset.done();
    }

    /// A data queue starts at `index` of its available ring.
    ///
    /// Where it did not stop there, another driver uses it now, or another daemon has served it: of
    /// the connections that one side knows the other knows nothing. A driver that begins anew, at 0,
    /// has none; any other has to be told.
    pub fn started(&self, side: Side, index: u16) {
        let mut left_at = self.left_at();
        let before = left_at.at[side as usize];
        if before == Some(index) {
            return;
        }
        if before.is_some() {
            // Of the other queue nothing is known then, either.
            *left_at = Positions::default();
        }
        left_at.at[side as usize] = Some(index);
        let tell = index != 0 && !std::mem::replace(&mut left_at.told, true);
        drop(left_at);
        if before.is_some() {
            self.lose_all();
        }
        if tell {
            self.reset.require();
        }
    }

    /// A data queue stops at `index`.
    pub fn stopped(&self, side: Side, index: u16) {
        self.left_at().at[side as usize] = Some(index);
    }

    /// Ends all connections. What a guest had sent is its program's all the same: those that have more of
    /// that to take than their sockets hold stay until they have.
    fn lose_all(&self) {
        self.mailbox.clear();
        for connection in self.connections() {
            let mut out = connection.outbound();
            if out.behind() > 0 {
                self.forget(&connection, &mut out);
            } else {
                self.remove(&connection);
            }
        }
        let mut table = self.table();
        table.dismiss_all();
        self.show(&table);
    }

    /// The gauge is written under the table's lock only.
    fn show(&self, table: &Table) {
        self.open.set(table.len() as u64);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_at(&self) -> MutexGuard<'_, Positions> {
        self.left_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

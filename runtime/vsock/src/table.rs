//! Who is connected.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::connection::Connection;
use crate::packet::Key;

/// The host's ports of connections that its programs begin: no program waits there.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

/// A program's socket.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It has not said yet which port it wants.
    Client(Arc<UnixStream>),
    /// It is joined to a port.
    Connection(Arc<Connection>),
}

/// The connections, by their ports and by the numbers that epoll knows them by.
#[derive(Debug)]
pub struct Table {
    entries: HashMap<u64, Entry>,
    by_key: HashMap<Key, Arc<Connection>>,
    next_id: u64,
    next_port: u32,
    limit: usize,
    room: u32,
}

impl Table {
    /// For `limit` connections, each with a buffer of `room` bytes for what the guest sends. Its
    /// numbers begin at `first_id`.
    pub fn new(limit: usize, room: u32, first_id: u64) -> Self {
        Self {
            entries: HashMap::new(),
            by_key: HashMap::new(),
            next_id: first_id,
            next_port: FIRST_PORT,
            limit,
            room,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a program in; `None` when there are as many as may be.
    pub fn admit(&mut self, client: UnixStream) -> Option<(u64, Arc<UnixStream>)> {
        let id = self.take_id()?;
        let client = Arc::new(client);
        self.entries.insert(id, Entry::Client(client.clone()));
        Some((id, client))
    }

    /// Joins the program `id` to the guest's port. The connection has the same number.
    pub fn promote(&mut self, id: u64, guest_port: u32) -> Option<Arc<Connection>> {
        let Some(Entry::Client(client)) = self.entries.remove(&id) else {
            return None;
        };
        let socket = Arc::into_inner(client)?;
        let key = self.free_key(guest_port);
        Some(self.insert(id, key, socket))
    }

    /// A connection that the guest has begun; `None` when there are as many as may be, or one of these
    /// ports.
    pub fn open(&mut self, key: Key, socket: UnixStream) -> Option<Arc<Connection>> {
        if self.by_key.contains_key(&key) {
            return None;
        }
        let id = self.take_id()?;
        Some(self.insert(id, key, socket))
    }

    /// Whether there may be more.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.limit
    }

    /// The connection of these ports.
    pub fn find(&self, key: Key) -> Option<Arc<Connection>> {
        self.by_key.get(&key).cloned()
    }

    /// What has this number.
    pub fn get(&self, id: u64) -> Option<Entry> {
        self.entries.get(&id).cloned()
    }

    /// Gives the connection's ports free; its number stays.
    pub fn forget(&mut self, connection: &Connection) {
        if let Place::Occupied(place) = self.by_key.entry(connection.key)
            && place.get().id == connection.id
        {
            place.remove();
        }
    }

    /// Removes it.
    pub fn remove(&mut self, connection: &Connection) {
        self.forget(connection);
        self.entries.remove(&connection.id);
    }

    /// Removes a program that was not joined.
    pub fn dismiss(&mut self, id: u64) {
        self.entries.remove(&id);
    }

    /// Removes all that were not joined.
    pub fn dismiss_all(&mut self) {
        self.entries
            .retain(|_, entry| matches!(entry, Entry::Connection(_)));
    }

    /// All connections, as they are now.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        let connection = |entry: &Entry| match entry {
            Entry::Connection(connection) => Some(connection.clone()),
            Entry::Client(_) => None,
        };
        self.entries.values().filter_map(connection).collect()
    }

    /// Removes all.
    pub fn clear(&mut self) -> Vec<Arc<Connection>> {
        let all = self.connections();
        self.entries.clear();
        self.by_key.clear();
        all
    }

    fn take_id(&mut self) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    /// A key that no connection has: there are a million times as many ports as connections.
    fn free_key(&mut self, guest_port: u32) -> Key {
        loop {
            let host_port = self.next_port;
            self.next_port = if host_port == LAST_PORT {
                FIRST_PORT
            } else {
                host_port + 1
            };
            let key = Key {
                host_port,
                guest_port,
            };
            if !self.by_key.contains_key(&key) {
                return key;
            }
        }
    }

    fn insert(&mut self, id: u64, key: Key, socket: UnixStream) -> Arc<Connection> {
        let connection = Arc::new(Connection::new(id, key, socket, self.room));
        let entry = Entry::Connection(connection.clone());
        self.entries.insert(id, entry);
        self.by_key.insert(key, connection.clone());
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> UnixStream {
        UnixStream::pair().unwrap().0
    }

    #[test]
    fn there_are_no_more_than_may_be() {
        let mut table = Table::new(2, 1024, 1);
        let (id, client) = table.admit(socket()).unwrap();
        let key = Key {
            host_port: 5,
            guest_port: 6,
        };
        let opened = table.open(key, socket()).unwrap();
        assert!(table.open(key, socket()).is_none());
        assert!(table.admit(socket()).is_none());
        drop(client);
        let joined = table.promote(id, 6).unwrap();
        assert_eq!((joined.id, joined.key.guest_port), (id, 6));
        assert_ne!(joined.key.host_port, 5);
        table.remove(&opened);
        assert!(table.find(key).is_none());
        assert!(table.admit(socket()).is_some());
    }

    #[test]
    fn ports_that_were_given_free_are_another_connections() {
        let mut table = Table::new(4, 1024, 1);
        let key = Key {
            host_port: 5,
            guest_port: 6,
        };
        let old = table.open(key, socket()).unwrap();
        table.forget(&old);
        let new = table.open(key, socket()).unwrap();
        table.remove(&old);
        assert_eq!(table.find(key).unwrap().id, new.id);
        assert_eq!(table.len(), 1);
    }
}

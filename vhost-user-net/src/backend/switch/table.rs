//! Which station is behind which port.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crate::config::Mac;

/// A station that has been silent for so long is forgotten.
const AGE: Duration = Duration::from_secs(300);
/// A guest can use any sender's address: more than this many of one port are not remembered, and
/// frames to them go to all ports.
const MOST_PER_PORT: usize = 1024;

/// Addresses as learned from the senders of frames.
#[derive(Default)]
pub(super) struct Table(RwLock<HashMap<[u8; 6], Entry>>);

#[derive(Clone, Copy)]
struct Entry {
    port: usize,
    seen: Instant,
}

impl Table {
    /// How long a sender may believe that what it told is still remembered.
    pub(super) const REFRESH: Duration = Duration::from_secs(1);

    /// The port of a station, if it is known.
    pub(super) fn port(&self, station: Mac, now: Instant) -> Option<usize> {
        let entry = self.read().get(&station.0).copied()?;
        (now.saturating_duration_since(entry.seen) < AGE).then_some(entry.port)
    }

    /// A station was heard at `port`.
    pub(super) fn learn(&self, station: Mac, port: usize, now: Instant) {
        if !station.is_station() {
            return;
        }
        let entry = Entry { port, seen: now };
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.get_mut(&station.0) {
            *known = entry;
            return;
        }
        if table.values().filter(|entry| entry.port == port).count() >= MOST_PER_PORT {
            table.retain(|_, entry| now.saturating_duration_since(entry.seen) < AGE);
            if table.values().filter(|entry| entry.port == port).count() >= MOST_PER_PORT {
                return;
            }
        }
        table.insert(station.0, entry);
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<[u8; 6], Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn stations_move_and_are_forgotten() {
        let (table, now) = (Table::default(), Instant::now());
        table.learn(station(1), 3, now);
        assert_eq!(table.port(station(1), now), Some(3));
        table.learn(station(1), 4, now);
        assert_eq!(table.port(station(1), now), Some(4));
        assert_eq!(table.port(station(1), now + AGE), None);
        table.learn(Mac([0xff; 6]), 1, now);
        assert_eq!(table.port(Mac([0xff; 6]), now), None);
    }

    #[test]
    fn one_port_cannot_fill_the_table() {
        let (table, now) = (Table::default(), Instant::now());
        for number in 0..10_000 {
            table.learn(station(number), 0, now);
        }
        assert_eq!(table.read().len(), MOST_PER_PORT);
        table.learn(station(20_000), 1, now);
        assert_eq!(table.port(station(20_000), now), Some(1));
        // The old ones have gone silent.
        table.learn(station(30_000), 0, now + AGE);
        assert_eq!(table.port(station(30_000), now + AGE), Some(0));
    }
}

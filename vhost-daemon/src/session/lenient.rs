//! What front ends in use send and the vhost crate does not take: put right on the way.

use std::io;

/// A message's header: le32 request, flags, size (vhost-user, "Header").
pub(super) const HEADER: usize = 12;

/// `VHOST_USER_SET_FEATURES`
const SET_FEATURES: u32 = 2;
/// `VHOST_USER_SET_VRING_ENABLE`
const SET_VRING_ENABLE: u32 = 18;
/// The flag that asks for an answer (vhost-user, "Header").
const NEED_REPLY: u32 = 8;

/// `SET_VRING_ENABLE`s that came before `SET_FEATURES`. QEMU's vhost-user-net sends them when it
/// makes the device; the vhost crate ends the connection on them. They follow the features.
pub(super) enum EarlyEnables {
    Holding(Vec<Vec<u8>>),
    Over,
}

impl EarlyEnables {
    /// More than any front end has queues for.
    const MOST: usize = 256;

    /// Before `SET_FEATURES`.
    pub(super) fn holding() -> Self {
        Self::Holding(Vec::new())
    }

    /// What becomes of `message`. One that awaits an answer is not held: nobody would answer.
    pub(super) fn pass(&mut self, message: &[u8]) -> io::Result<Passage> {
        let Self::Holding(held) = self else {
            return Ok(Passage::Alone);
        };
        match word(message, 0) {
            Some(SET_FEATURES) => {
                let held = std::mem::take(held);
                *self = Self::Over;
                Ok(Passage::Before(held))
            }
            Some(SET_VRING_ENABLE) if !asks_for_reply(message) => {
                if held.len() == Self::MOST {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                held.push(message.to_vec());
                Ok(Passage::Held)
            }
            _ => Ok(Passage::Alone),
        }
    }
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It goes on.
    Alone,
    /// It waits.
    Held,
    /// It goes on, and these that waited follow.
    Before(Vec<Vec<u8>>),
}

fn asks_for_reply(message: &[u8]) -> bool {
    word(message, 4).is_some_and(|flags| flags & NEED_REPLY != 0)
}

/// The word of the host's byte order at byte `at`, if the message is that long.
pub(super) fn word(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// `VHOST_USER_SET_MEM_TABLE`
const SET_MEM_TABLE: u32 = 5;

/// Cuts the unused entries off a memory table: le32 number of regions, le32 padding, then 32 bytes
/// for each region (vhost-user, "Multiple memory regions description").
pub(super) fn trim_memory_table(message: &mut Vec<u8>) {
    let (Some(SET_MEM_TABLE), Some(regions)) = (word(message, 0), word(message, HEADER)) else {
        return;
    };
    let size = regions
        .checked_mul(32)
        .and_then(|bytes| bytes.checked_add(8));
    let Some(size) = size.filter(|size| HEADER + (*size as usize) < message.len()) else {
        return;
    };
    message.truncate(HEADER + size as usize);
    message[8..HEADER].copy_from_slice(&size.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(regions: u32, entries: usize) -> Vec<u8> {
        let payload = 8 + entries * 32;
        let mut message = SET_MEM_TABLE.to_ne_bytes().to_vec();
        message.extend(1_u32.to_ne_bytes());
        message.extend(u32::try_from(payload).unwrap().to_ne_bytes());
        message.extend(regions.to_ne_bytes());
        message.resize(HEADER + payload, 7);
        message
    }

    #[test]
    fn a_memory_table_loses_its_unused_entries() {
        let mut message = table(1, 2);
        trim_memory_table(&mut message);
        assert_eq!(message.len(), HEADER + 40);
        assert_eq!(message[8..12], 40_u32.to_ne_bytes());
    }

    #[test]
    fn other_messages_stay_as_they_are() {
        for mut message in [
            table(2, 2),
            table(9, 2),
            table(u32::MAX, 1),
            vec![5; 13],
            vec![],
        ] {
            let before = message.clone();
            trim_memory_table(&mut message);
            assert_eq!(message, before);
        }
    }

    fn message(request: u32, flags: u32) -> Vec<u8> {
        [request, flags, 8, 0, 1].map(u32::to_ne_bytes).concat()
    }

    #[test]
    fn rings_enabled_too_early_are_enabled_after_the_features() {
        let mut early = EarlyEnables::holding();
        let enable = message(SET_VRING_ENABLE, 1);
        assert_eq!(early.pass(&enable).unwrap(), Passage::Held);
        let asking = message(SET_VRING_ENABLE, 1 | NEED_REPLY);
        assert_eq!(early.pass(&asking).unwrap(), Passage::Alone);
        assert_eq!(early.pass(&message(1, 1)).unwrap(), Passage::Alone);
        let features = message(SET_FEATURES, 1);
        assert_eq!(
            early.pass(&features).unwrap(),
            Passage::Before(vec![enable.clone()])
        );
        assert_eq!(early.pass(&enable).unwrap(), Passage::Alone);
    }

    #[test]
    fn a_flood_of_early_enables_ends_the_connection() {
        let mut early = EarlyEnables::holding();
        for _ in 0..EarlyEnables::MOST {
            assert_eq!(
                early.pass(&message(SET_VRING_ENABLE, 1)).unwrap(),
                Passage::Held
            );
        }
        assert!(early.pass(&message(SET_VRING_ENABLE, 1)).is_err());
    }
}

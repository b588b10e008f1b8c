//! A driver's wishes as the words of a state file.

use std::collections::HashSet;

use super::{MOST_ADDRESSES, VLANS, Wishes};
use crate::config::Mac;

/// Modes and overflows; the own address; counts of both tables.
const NUMBERS: usize = 4;
/// The own address is known.
const OWN: u64 = 1 << 48;
/// Behind the bits of modes and overflows: VLANs are filtered.
const FILTERS_VLANS: u64 = 1 << 8;
const FLAGS: usize = 8;

impl Wishes {
    /// How many words they always are.
    pub const WORDS: usize = NUMBERS + 2 * MOST_ADDRESSES + VLANS / 64;

    /// They as words.
    pub fn words(&self) -> Vec<u64> {
        let flags = self.flags().into_iter().rev();
        let flags = flags.fold(0, |bits, flag| bits << 1 | u64::from(flag));
        let filters = if self.vlans.is_some() {
            FILTERS_VLANS
        } else {
            0
        };
        let own = self.own.map_or(0, |own| OWN | to_word(own.0));
        let counts = [&self.unicast, &self.multicast].map(|table| table.len() as u64);
        let mut words = vec![flags | filters, own];
        words.extend(counts);
        for (table, end) in [(&self.unicast, 1), (&self.multicast, 2)] {
            // In an order that no process changes: what stays the same is written as it was.
            let mut macs: Vec<u64> = table.iter().map(|mac| to_word(*mac)).collect();
            macs.sort_unstable();
            words.extend(macs);
            words.resize(NUMBERS + end * MOST_ADDRESSES, 0);
        }
        words.extend(self.vlans.as_deref().unwrap_or(&[0; VLANS / 64]));
        words
    }

    /// Those that [`words`](Self::words) gave; `None` for what are none.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let (&[flags, own, unicast, multicast], rest) = words.split_first_chunk()?;
        let (tables, vlans) = rest.split_at_checked(2 * MOST_ADDRESSES)?;
        let table = |from: usize, count: u64| -> Option<HashSet<[u8; 6]>> {
            let count = usize::try_from(count).ok()?;
            let table = tables.get(from..from + MOST_ADDRESSES)?;
            Some(
                table
                    .get(..count)?
                    .iter()
                    .map(|word| from_word(*word))
                    .collect(),
            )
        };
        let own = (own & OWN != 0).then(|| Mac(from_word(own)));
        if own.is_some_and(|own| !own.is_station()) {
            return None;
        }
        let mut wishes = Self::new(own, false);
        wishes.unicast = table(0, unicast)?;
        wishes.multicast = table(MOST_ADDRESSES, multicast)?;
        if flags & FILTERS_VLANS != 0 {
            wishes.vlans = Some(Box::new(vlans.try_into().ok()?));
        }
        wishes.set_flags(std::array::from_fn(|at| flags >> at & 1 != 0));
        Some(wishes)
    }

    fn flags(&self) -> [bool; FLAGS] {
        [
            self.promiscuous,
            self.all_unicast,
            self.all_multicast,
            self.no_unicast,
            self.no_multicast,
            self.no_broadcast,
            self.unicast_overflow,
            self.multicast_overflow,
        ]
    }

    fn set_flags(&mut self, flags: [bool; FLAGS]) {
        [
            self.promiscuous,
            self.all_unicast,
            self.all_multicast,
            self.no_unicast,
            self.no_multicast,
            self.no_broadcast,
            self.unicast_overflow,
            self.multicast_overflow,
        ] = flags;
    }
}

fn to_word(mac: [u8; 6]) -> u64 {
    mac.iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn from_word(word: u64) -> [u8; 6] {
    let [_, _, mac @ ..] = word.to_be_bytes();
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn wishes_are_their_words(
            own: Option<[u8; 5]>,
            flags: [bool; FLAGS],
            unicast in prop::collection::hash_set(any::<[u8; 6]>(), 0..20),
            multicast in prop::collection::hash_set(any::<[u8; 6]>(), 0..20),
            vlans in prop::option::of(prop::collection::vec(0_u16..4096, 0..20)),
        ) {
            let own = own.map(|[a, b, c, d, e]| Mac([2, a, b, c, d, e]));
            let mut wishes = Wishes::new(own, vlans.is_some());
            wishes.unicast = unicast;
            wishes.multicast = multicast;
            wishes.set_flags(flags);
            vlans.iter().flatten().for_each(|id| wishes.set_vlan(*id, true));
            let words = wishes.words();
            prop_assert_eq!(words.len(), Wishes::WORDS);
            prop_assert_eq!(Wishes::from_words(&words), Some(wishes));
        }

        #[test]
        fn any_words_are_wishes_or_none(
            start in prop::collection::vec(any::<u64>(), 0..8),
            len in prop_oneof![Just(Wishes::WORDS), 0..2 * Wishes::WORDS],
        ) {
            let mut words = start;
            words.resize(len, u64::MAX);
            let wishes = Wishes::from_words(&words);
            prop_assert!(wishes.is_none_or(|it| it.unicast.len() <= MOST_ADDRESSES));
        }
    }

    #[test]
    fn more_addresses_than_there_is_room_for_are_none() {
        let mut words = Wishes::new(None, true).words();
        words[2] = MOST_ADDRESSES as u64;
        assert!(Wishes::from_words(&words).is_some());
        words[2] += 1;
        assert!(Wishes::from_words(&words).is_none());
    }
}

//! Chance, the same for the same seed.

use lab::Random;

/// Values at which arithmetic goes wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    15,
    16,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0xffff_fff0,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

pub(crate) struct Dice(Random);

impl Dice {
    /// Another row of numbers for each `name`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(Random::new(
            name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix),
        ))
    }

    /// For a thread of its own.
    pub(crate) fn split(&mut self) -> Self {
        Self(Random::new(self.0.number()))
    }

    /// Less than `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Anything; often a value at an edge.
    pub(crate) fn any(&mut self) -> u64 {
        match self.below(3) {
            0 => EDGES[self.below(EDGES.len() as u64) as usize],
            1 => self.below(4096),
            _ => self.0.number(),
        }
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.0.number().to_be_bytes()[0]).collect()
    }
}

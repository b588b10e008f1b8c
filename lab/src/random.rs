//! Chance, the same for the same seed.

/// Numbers that look random: xorshift64 (Marsaglia, "Xorshift RNGs").
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The row that a seed begins.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Spread, so that small seeds do not begin with small numbers; never zero, which would stay so.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number of the row.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `limit`, which is between 1 and 2^48.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The upper bits are the better ones.
        (self.number() >> 16) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_seeds_and_reaches_every_number() {
        let row = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| random.below(8)).collect::<Vec<_>>()
        };
        assert_eq!(row(3), row(3));
        for seed in 0..20 {
            assert_ne!(row(seed), row(seed + 1));
            assert!((0..8).all(|it| row(seed).contains(&it)), "{seed}");
        }
    }
}

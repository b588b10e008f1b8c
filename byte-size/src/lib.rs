#![doc = include_str!("../README.md")]

use std::fmt;
use std::str::FromStr;

/// A number of bytes, typed as `4096`, `512K`, `256M`, `2G` or `1T` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// What is wrong with a typed size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// Not digits with at most one unit.
    #[error("a size is a number with an optional K, M, G or T, as in 512M")]
    Format,
    /// More than 64 bits.
    #[error("the size does not fit in 64 bits")]
    TooLarge,
}

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = text.chars().last().map(|last| last.to_ascii_uppercase());
        let shift = UNITS
            .iter()
            .find(|(name, _)| Some(*name) == unit)
            .map(|(_, shift)| *shift);
        let digits = if shift.is_some() {
            &text[..text.len() - 1]
        } else {
            text
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ByteSizeError::Format);
        }
        let number: u64 = digits.parse().map_err(|_| ByteSizeError::TooLarge)?;
        let bytes = number
            .checked_mul(1 << shift.unwrap_or(0))
            .ok_or(ByteSizeError::TooLarge)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, shift): &&(char, u32)| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().rev().find(fits) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("3k", 3072),
            ("512M", 512 << 20),
            ("2G", 2 << 30),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!(ByteSize(512 << 20).to_string(), "512M");
        assert_eq!(ByteSize(1500).to_string(), "1500");
        assert_eq!(ByteSize(0).to_string(), "0");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "-1", "1.5G", "1MM", "1 G", "ž", "+5"] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(ByteSizeError::Format),
                "{text}"
            );
        }
        for text in ["99999999999999999999", "99999999T"] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(ByteSizeError::TooLarge),
                "{text}"
            );
        }
    }
}

//! Which run of the host's kernel this is.

use std::fs;

/// Where the kernel tells it (random(4)): a UUID, made anew at each boot.
const PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Tells one boot of the host from every other. No guest outlives its host, so that state of another boot is
/// about no guest that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId([u64; 2]);

impl BootId {
    /// That of the running kernel. Where it does not tell, all boots are one.
    #[must_use]
    pub fn current() -> Self {
        let text = fs::read_to_string(PATH).unwrap_or_default();
        Self::parse(&text).unwrap_or_else(|| {
            tracing::warn!(
                "{PATH} cannot be read: state of a former boot is not told from this one's"
            );
            Self([0; 2])
        })
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim_end().split('-').collect();
        let (high, low) = digits.split_at_checked(16)?;
        let word = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self([word(high)?, word(low)?]))
    }

    /// The same as two words of a state file.
    #[must_use]
    pub fn words(self) -> [u64; 2] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_form_is_understood() {
        let text = "0123abcd-0000-4000-8000-0000000000ff\n";
        let words = [0x0123_abcd_0000_4000, 0x8000_0000_0000_00ff];
        assert_eq!(BootId::parse(text), Some(BootId(words)));
        assert_eq!(BootId::parse(""), None);
        assert_eq!(BootId::current(), BootId::current());
        assert_ne!(BootId::current().words(), [0; 2]);
    }
}

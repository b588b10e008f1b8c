//! What memory a process has written for itself alone, and what else it holds (proc(5), `/proc/PID/smaps`).

use std::fs;
use std::io;

/// KiB of dirty private pages in mappings smaller than `limit_kib`: a VMM's own memory, where the guest's
/// is one mapping or two of at least that size.
///
/// # Errors
/// When the process is gone or somebody else's.
pub fn private_kib(pid: u32, limit_kib: u64) -> io::Result<u64> {
    Ok(sum(
        &fs::read_to_string(format!("/proc/{pid}/smaps"))?,
        limit_kib,
    ))
}

fn sum(smaps: &str, limit_kib: u64) -> u64 {
    let mut total = 0;
    let mut counts = true;
    for line in smaps.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        match name {
            "Size" => counts = kib(rest).is_none_or(|size| size < limit_kib),
            "Private_Dirty" | "Private_Hugetlb" if counts => total += kib(rest).unwrap_or(0),
            _ => {}
        }
    }
    total
}

/// What stands behind the name of a figure.
fn kib(rest: &str) -> Option<u64> {
    rest.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// What a process holds, in KiB.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Dirty pages of its own: [`private_kib`].
    pub private_kib: u64,
    /// All other resident pages but a guest's: programs, libraries, what several share.
    pub clean_kib: u64,
    /// Resident pages of large files in memory (memfd): a guest's memory.
    pub guest_kib: u64,
}

impl Memory {
    /// Reads it; a memfd of `limit_kib` and more is a guest's memory. (QEMU's translator has large mappings, too.)
    ///
    /// # Errors
    /// When the process is gone or somebody else's.
    pub fn of(pid: u32, limit_kib: u64) -> io::Result<Self> {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        Ok(Self::parse(&smaps, limit_kib))
    }

    fn parse(smaps: &str, limit_kib: u64) -> Self {
        let mut memory = Self::default();
        let (mut memfd, mut guest) = (false, false);
        for line in smaps.lines() {
            let Some((name, rest)) = line.split_once(':') else {
                memfd = false;
                continue;
            };
            match name {
                "Size" => guest = memfd && kib(rest).is_some_and(|size| size >= limit_kib),
                "Rss" if guest => memory.guest_kib += kib(rest).unwrap_or(0),
                "Rss" => memory.clean_kib += kib(rest).unwrap_or(0),
                "Private_Dirty" if !guest => {
                    let dirty = kib(rest).unwrap_or(0);
                    memory.private_kib += dirty;
                    memory.clean_kib = memory.clean_kib.saturating_sub(dirty);
                }
                // A mapping's first line, with addresses and a device's number `00:01`.
                _ if name.contains('-') => memfd = line.contains("/memfd:"),
                _ => {}
            }
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_apart() {
        let smaps = "\
7f00-7f10 rw-s 00000000 00:01 1 /memfd:guest-memory (deleted)
Size:             262144 kB
Rss:               90004 kB
Private_Dirty:     90000 kB
5500-5600 rw-p 00000000 00:00 0 [heap]
Size:                132 kB
Rss:                 100 kB
Private_Dirty:        96 kB
";
        let memory = Memory {
            private_kib: 96,
            clean_kib: 4,
            guest_kib: 90_004,
        };
        assert_eq!(Memory::parse(smaps, 131_072), memory);
    }

    #[test]
    fn the_guests_memory_does_not_count() {
        let smaps = "\
7f00-7f10 rw-s 00000000 00:01 1 /memfd:guest-memory (deleted)
Size:             262144 kB
Private_Dirty:     90000 kB
5500-5600 rw-p 00000000 00:00 0 [heap]
Size:                132 kB
Private_Dirty:        96 kB
5600-5700 rw-p 00000000 00:00 0
Size:               8192 kB
Private_Dirty:        12 kB
";
        assert_eq!(sum(smaps, 131_072), 108);
        assert_eq!(sum(smaps, u64::MAX), 90_108);
    }

    #[test]
    fn what_is_written_counts() {
        let before = private_kib(std::process::id(), u64::MAX).unwrap();
        let written = std::hint::black_box(vec![1_u8; 8 << 20]);
        let after = private_kib(std::process::id(), u64::MAX).unwrap();
        assert!(after >= before + 7 * 1024, "{before} {after}");
        drop(written);
    }
}

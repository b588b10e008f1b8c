//! What memory a process has written for itself alone (proc(5), `/proc/PID/smaps`).

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
        let kib = || rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok();
        match name {
            "Size" => counts = kib().is_none_or(|size| size < limit_kib),
            "Private_Dirty" | "Private_Hugetlb" if counts => total += kib().unwrap_or(0),
            _ => {}
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! The clock and the random generator, after the guest was stopped for a while.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `RNDADDENTROPY` and `RNDRESEEDCRNG`, random(4).
const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
const RESEED: libc::c_ulong = 0x5207;

/// Bytes of one `RNDADDENTROPY`.
const PIECE: usize = 512;

/// `struct rand_pool_info`, random(4).
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    size: i32,
    bytes: [u8; PIECE],
}

/// Feeds the kernel's random generator, trusting every bit, and has it use them at once.
pub(crate) fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    let generator = File::options().write(true).open("/dev/urandom")?;
    for piece in bytes.chunks(PIECE) {
        // A piece is at most 512 bytes.
        let size = i32::try_from(piece.len()).unwrap_or_default();
        let mut info = PoolInfo {
            entropy_bits: size * 8,
            size,
            bytes: [0; PIECE],
        };
        info.bytes[..piece.len()].copy_from_slice(piece);
        // SAFETY: the call reads `size` bytes behind the two integers, and no more than PIECE are said.
        super::check(unsafe { libc::ioctl(generator.as_raw_fd(), ADD_ENTROPY, &raw const info) })?;
    }
    // SAFETY: the call takes no argument.
    super::check(unsafe { libc::ioctl(generator.as_raw_fd(), RESEED) })
}

/// Nanoseconds since 1970, by the guest's clock.
pub(crate) fn realtime_ns() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// Sets the guest's clock to nanoseconds since 1970.
pub(crate) fn set_realtime(ns: i64) -> io::Result<()> {
    use rustix::time::{ClockId, Timespec, clock_settime};
    let time = Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

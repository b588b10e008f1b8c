//! Measures whether /dev/kvm runs ring-0 code at the processor's speed.
//!
//! Nested cloud machines may offer a /dev/kvm that interprets ring-0 code at under two million
//! instructions a second and fails on some: no stock kernel boots there.

#![allow(unsafe_code, reason = "guest memory is mapped and handed to KVM")]

mod guest;

use std::time::{Duration, Instant};

use kvm_ioctls::VcpuExit;

/// Slowest speed that counts as native. Native is billions (in the lab, whose processor is
/// translated, hundreds of millions, less on a busy host), interpreted is about two million.
const NATIVE: u64 = 30_000_000;

/// A round this long measures well enough.
const ENOUGH: Duration = Duration::from_millis(10);

/// A round that was slow is tried again this often: whoever shares the processor may have had it.
/// With [`ENOUGH`] it bounds the probe of a slow KVM to a tenth of a second or two.
const TRIES: u32 = 8;

/// Loop turns of the first round; each further round doubles them.
const FIRST_TURNS: u32 = 1000;
const MOST_TURNS: u32 = 1 << 24;

/// What the probe measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Ring-0 instructions a second.
    pub instructions_per_second: u64,
}

impl Speed {
    /// Whether a stock kernel can be expected to boot.
    #[must_use]
    pub fn is_native(self) -> bool {
        self.instructions_per_second > NATIVE
    }
}

/// Why /dev/kvm cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A step on the way to a running guest failed.
    #[error("cannot {step}: {source}")]
    Kvm {
        /// The step.
        step: &'static str,
        /// Why; a plain number from the kernel, so shown with the message.
        source: kvm_ioctls::Error,
    },
    /// No memory for the guest.
    #[error("cannot map memory for a probe guest: {0}")]
    Memory(rustix::io::Errno),
    /// The guest did something else than count.
    #[error("the probe guest stopped with {0} instead of counting")]
    Exit(String),
}

/// Runs a ring-0 counting loop in rounds of growing length until one is long enough to measure.
///
/// # Errors
/// When /dev/kvm is missing, closed to this user, or cannot run the loop.
pub fn probe() -> Result<Speed, ProbeError> {
    let mut guest = guest::CountingGuest::new()?;
    let mut turns = FIRST_TURNS;
    let mut slow_rounds = 0;
    loop {
        guest.set_turns(turns)?;
        let start = Instant::now();
        match guest.vcpu.run() {
            Ok(VcpuExit::Hlt) => {}
            // A signal, say a new window size, says nothing about KVM: measure again.
            Err(source) if source.errno() == libc::EINTR => continue,
            Ok(exit) => return Err(ProbeError::Exit(format!("{exit:?}"))),
            Err(source) => {
                return Err(ProbeError::Kvm {
                    step: "run a probe guest",
                    source,
                });
            }
        }
        let elapsed = start.elapsed();
        let speed = speed(turns, elapsed);
        if elapsed < ENOUGH && turns < MOST_TURNS {
            turns *= 2;
        } else if speed.is_native() || slow_rounds == TRIES {
            return Ok(speed);
        } else {
            slow_rounds += 1;
        }
    }
}

fn speed(turns: u32, elapsed: Duration) -> Speed {
    let instructions = u128::from(turns) * guest::INSTRUCTIONS_PER_TURN;
    let nanoseconds = elapsed.as_nanos().max(1);
    let per_second = instructions * 1_000_000_000 / nanoseconds;
    Speed {
        instructions_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_instructions_by_time() {
        let native = speed(1 << 24, Duration::from_millis(10));
        assert!(native.is_native() && native.instructions_per_second > 3_000_000_000);
        assert!(!speed(50_000, Duration::from_millis(10)).is_native());
    }

    #[test]
    fn the_probe_ends_soon_whatever_kvm_is() {
        let start = Instant::now();
        let result = probe();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{result:?} took {:?}",
            start.elapsed()
        );
    }
}

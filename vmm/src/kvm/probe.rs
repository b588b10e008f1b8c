//! Measures whether KVM runs ring-0 code at the processor's speed, on the guest's own first processor
//! before it is set up: some nested hosts interpret it.

use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress};

use super::KvmError;
use super::error::failed;
use super::registers;
use crate::memory::GuestMemory;

/// Slowest speed that counts as native. Native is billions (in the lab, whose processor is translated,
/// hundreds of millions, less on a busy host), interpreted is about two million.
const NATIVE: u64 = 30_000_000;
/// `dec` and `jnz`.
const INSTRUCTIONS_PER_TURN: u128 = 2;
/// Native, a round is some microseconds; interpreted, 20 milliseconds.
const TURNS: u32 = 20_000;
/// A busy host may take the processor away in a round: the best of so many counts.
const ROUNDS: usize = 8;

const LOAD_ADDRESS: u64 = 0x1000;
/// `1: dec ecx; jnz 1b; out 0x80, al; jmp 1b` in 32-bit mode.
const CODE: [u8; 7] = [0x49, 0x75, 0xfd, 0xe6, 0x80, 0xeb, 0xf9];

/// How fast the guest's kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Ring-0 instructions a second.
    pub instructions_per_second: u64,
}

impl Speed {
    /// An error where no stock kernel boots.
    ///
    /// # Errors
    /// When ring-0 code is interpreted.
    pub fn check(self) -> Result<(), KvmError> {
        if self.instructions_per_second >= NATIVE {
            return Ok(());
        }
        Err(KvmError::Emulated {
            millions: self.instructions_per_second / 1_000_000,
        })
    }
}

/// The best of a few rounds; one that is native ends them.
pub(super) fn measure(vcpu: &mut VcpuFd, memory: &GuestMemory) -> Result<Speed, KvmError> {
    let mapped = memory.mapped();
    let address = GuestAddress(LOAD_ADDRESS);
    // A restored guest's memory is there already.
    let before: [u8; CODE.len()] = mapped.read_obj(address).map_err(KvmError::ProbeMemory)?;
    mapped
        .write_slice(&CODE, address)
        .map_err(KvmError::ProbeMemory)?;
    registers::enter_protected_mode(vcpu)?;
    let mut best = Speed {
        instructions_per_second: 0,
    };
    for _ in 0..ROUNDS {
        best = faster(best, speed(round(vcpu)?));
        if best.check().is_ok() {
            break;
        }
    }
    mapped
        .write_slice(&before, address)
        .map_err(KvmError::ProbeMemory)?;
    Ok(best)
}

fn faster(one: Speed, other: Speed) -> Speed {
    if one.instructions_per_second > other.instructions_per_second {
        one
    } else {
        other
    }
}

fn round(vcpu: &mut VcpuFd) -> Result<Duration, KvmError> {
    let registers = kvm_regs {
        rip: LOAD_ADDRESS,
        rcx: TURNS.into(),
        rflags: registers::RFLAGS,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&registers).map_err(failed("set registers"))?;
    let start = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(..)) => return Ok(start.elapsed()),
            Err(source) if source.errno() == libc::EINTR => {}
            Ok(exit) => return Err(KvmError::ProbeExit(format!("{exit:?}"))),
            Err(source) => return Err(failed("run the probe")(source)),
        }
    }
}

fn speed(elapsed: Duration) -> Speed {
    let instructions = u128::from(TURNS) * INSTRUCTIONS_PER_TURN;
    let per_second = instructions * 1_000_000_000 / elapsed.as_nanos().max(1);
    Speed {
        instructions_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_instructions_by_time() {
        assert!(speed(Duration::from_micros(20)).check().is_ok());
        let slow = speed(Duration::from_millis(20)).check().unwrap_err();
        let sentence = slow.to_string();
        assert!(
            sentence.contains("at 2 million instructions a second"),
            "{sentence}"
        );
    }
}

//! The local APIC's two pins, as firmware leaves them (MultiProcessor specification 1.4, 3.6.2.2).

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

use super::KvmError;
use super::error::failed;

/// Registers of the local vector table (Intel SDM volume 3, table 10-1).
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
/// Delivery modes, in bits 8 to 10.
const EXTERNAL: u32 = 7 << 8;
const NMI: u32 = 4 << 8;

pub(super) fn set_pins(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let mut state = vcpu.get_lapic().map_err(failed("read the local APIC"))?;
    put(&mut state, LINT0, EXTERNAL);
    put(&mut state, LINT1, NMI);
    vcpu.set_lapic(&state).map_err(failed("set the local APIC"))
}

fn put(state: &mut kvm_lapic_state, register: usize, value: u32) {
    for (place, byte) in state.regs[register..].iter_mut().zip(value.to_le_bytes()) {
        *place = byte.cast_signed();
    }
}

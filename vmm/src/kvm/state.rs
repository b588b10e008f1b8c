//! What the kernel knows of a machine that is paused, besides its memory: to be kept, and given to another
//! machine.
#![allow(unsafe_code, reason = "an extended state is handed to KVM by address")]

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_cpuid_entry2,
    kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::error::failed;
use super::{KvmError, VcpuThread, Vm};

/// A processor. Fields are the kernel's structures, as lists of bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessorState {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    mp_state: kvm_mp_state,
    registers: kvm_regs,
    special: kvm_sregs,
    extended: kvm_xsave,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    local_apic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// Interrupt controllers that processors share: two 8259, one I/O APIC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChipState(Vec<kvm_irqchip>);

const CHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];
/// The time-stamp counter, and when the local APIC's timer fires by it. The latter counts only after
/// the former and the APIC's mode are set (Intel SDM volume 3, 10.5.4.1).
const TSC: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;
/// Where KVM shall write the time of day, by its old and its new number: setting it writes it into the
/// guest's memory at once, which is to be as it was. A guest that wants the time sets it itself
/// (Linux Documentation/virt/kvm/x86/msr.rst).
const WALL_CLOCK: [u32; 2] = [0x11, 0x4b56_4d00];

impl Vm {
    /// The shared interrupt controllers' state.
    ///
    /// # Errors
    /// When KVM does not tell it.
    pub fn save_chips(&self) -> Result<ChipState, KvmError> {
        let save = |chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..kvm_irqchip::default()
            };
            self.fd
                .get_irqchip(&mut chip)
                .map_err(failed("tell an interrupt controller's state"))?;
            Ok(chip)
        };
        CHIPS
            .into_iter()
            .map(save)
            .collect::<Result<_, _>>()
            .map(ChipState)
    }

    /// Sets it.
    ///
    /// # Errors
    /// When KVM does not take it.
    pub fn restore_chips(&self, state: &ChipState) -> Result<(), KvmError> {
        for chip in &state.0 {
            self.fd
                .set_irqchip(chip)
                .map_err(failed("set an interrupt controller's state"))?;
        }
        Ok(())
    }

    /// Model-specific registers that KVM can save.
    fn msr_numbers(&self) -> Result<Vec<u32>, KvmError> {
        let list = self
            .kvm
            .get_msr_index_list()
            .map_err(failed("list model-specific registers"))?;
        Ok(list.as_slice().to_vec())
    }
}

impl VcpuThread {
    /// A paused processor's state.
    ///
    /// # Errors
    /// When KVM does not tell it.
    pub fn save(&self, vm: &Vm) -> Result<ProcessorState, KvmError> {
        let numbers = vm.msr_numbers()?;
        self.ask(move |vcpu| save(vcpu, &numbers))?
    }
}

fn save(vcpu: &VcpuFd, numbers: &[u32]) -> Result<ProcessorState, KvmError> {
    // KVM settles what is half done, interrupts above all, when it is asked for this.
    let mp_state = vcpu
        .get_mp_state()
        .map_err(failed("tell if a processor waits"))?;
    let entries = kvm_bindings::KVM_MAX_CPUID_ENTRIES;
    let cpuid = vcpu
        .get_cpuid2(entries)
        .map_err(failed("describe a processor"))?;
    Ok(ProcessorState {
        cpuid: cpuid.as_slice().to_vec(),
        tsc_khz: vcpu
            .get_tsc_khz()
            .map_err(failed("tell a counter's speed"))?,
        mp_state,
        registers: vcpu.get_regs().map_err(failed("read registers"))?,
        special: vcpu.get_sregs().map_err(failed("read system registers"))?,
        extended: vcpu
            .get_xsave()
            .map_err(failed("read extended registers"))?,
        extended_control: vcpu.get_xcrs().map_err(failed("read extended control"))?,
        debug: vcpu
            .get_debug_regs()
            .map_err(failed("read debug registers"))?,
        local_apic: vcpu.get_lapic().map_err(failed("read the local APIC"))?,
        msrs: msrs(vcpu, numbers)?,
        events: vcpu
            .get_vcpu_events()
            .map_err(failed("tell what a processor waits for"))?,
    })
}

/// KVM lists some that this processor does not have: it stops there, and is asked for what comes after.
fn msrs(vcpu: &VcpuFd, numbers: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
    let mut saved = Vec::new();
    let mut rest = numbers;
    while !rest.is_empty() {
        let entries: Vec<_> = rest.iter().map(|number| entry(*number)).collect();
        let mut msrs = Msrs::from_entries(&entries).map_err(|_| too_many(rest.len()))?;
        let count = vcpu
            .get_msrs(&mut msrs)
            .map_err(failed("read model-specific registers"))?;
        saved.extend_from_slice(&msrs.as_slice()[..count]);
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    Ok(saved)
}

fn entry(index: u32) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        ..kvm_msr_entry::default()
    }
}

fn too_many(count: usize) -> KvmError {
    KvmError::TooMany(count, "model-specific registers")
}

/// Makes a new processor what the saved one was. `own` is how this host describes it.
pub(super) fn restore(
    vcpu: &VcpuFd,
    own: &[kvm_cpuid_entry2],
    state: &ProcessorState,
) -> Result<(), KvmError> {
    if !is_same(own, &state.cpuid) {
        return Err(KvmError::OtherProcessor);
    }
    // Where the counter cannot be scaled, the same speed is taken, and another one is an error.
    if vcpu.get_tsc_khz().ok() != Some(state.tsc_khz) {
        vcpu.set_tsc_khz(state.tsc_khz)
            .map_err(failed("give the time-stamp counter the saved speed"))?;
    }
    vcpu.set_mp_state(state.mp_state)
        .map_err(failed("set if a processor waits"))?;
    vcpu.set_regs(&state.registers)
        .map_err(failed("set registers"))?;
    vcpu.set_sregs(&state.special)
        .map_err(failed("set system registers"))?;
    // SAFETY: KVM reads as many bytes as the guest's extended state has, at most the structure's 4096: more
    // needs features that a process must ask the kernel for (arch_prctl(2)), which we do not.
    unsafe { vcpu.set_xsave(&state.extended) }.map_err(failed("set extended registers"))?;
    vcpu.set_xcrs(&state.extended_control)
        .map_err(failed("set extended control"))?;
    vcpu.set_debug_regs(&state.debug)
        .map_err(failed("set debug registers"))?;
    vcpu.set_lapic(&state.local_apic)
        .map_err(failed("set the local APIC"))?;
    restore_msrs(vcpu, &state.msrs)?;
    vcpu.set_vcpu_events(&state.events)
        .map_err(failed("set what a processor waits for"))
}

fn restore_msrs(vcpu: &VcpuFd, saved: &[kvm_msr_entry]) -> Result<(), KvmError> {
    let mut ordered = saved.to_vec();
    ordered.retain(|entry| !WALL_CLOCK.contains(&entry.index));
    ordered.sort_by_key(|entry| match entry.index {
        TSC => 0,
        TSC_DEADLINE => 2,
        _ => 1,
    });
    let msrs = Msrs::from_entries(&ordered).map_err(|_| too_many(ordered.len()))?;
    let set = vcpu
        .set_msrs(&msrs)
        .map_err(failed("set model-specific registers"))?;
    ordered
        .get(set)
        .map_or(Ok(()), |refused| Err(KvmError::Msr(refused.index)))
}

/// Whether both describe the same processor. What the kernel fills in as the guest runs does not count:
/// OSXSAVE and OSPKE show control registers, leaf 0xd the size of what is enabled.
fn is_same(own: &[kvm_cpuid_entry2], saved: &[kvm_cpuid_entry2]) -> bool {
    let settled = |entries: &[kvm_cpuid_entry2]| {
        let mut entries: Vec<_> = entries
            .iter()
            .map(|it| {
                let (mut ebx, mut ecx) = (it.ebx, it.ecx);
                match it.function {
                    1 => ecx &= !(1 << 27),
                    7 => ecx &= !(1 << 4),
                    0xd => ebx = 0,
                    _ => {}
                }
                (it.function, it.index, it.eax, ebx, ecx, it.edx)
            })
            .filter(|it| (it.2, it.3, it.4, it.5) != (0, 0, 0, 0))
            .collect();
        entries.sort_unstable();
        entries
    };
    settled(own) == settled(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_differ_by_what_they_can_and_not_by_what_they_do() {
        let leaf = |function, eax, ecx| kvm_cpuid_entry2 {
            function,
            eax,
            ecx,
            ..kvm_cpuid_entry2::default()
        };
        let own = [leaf(1, 5, 3), leaf(0x20, 0, 0)];
        assert!(is_same(&own, &[leaf(1, 5, 3 | 1 << 27)]));
        assert!(!is_same(&own, &[leaf(1, 5, 2)]));
        assert!(!is_same(&own, &[leaf(1, 5, 3), leaf(7, 1, 0)]));
    }
}

//! Keeps the kernel from patching its own text while the lab lives.
//!
//! KVM switches features on in the kernel's code (static keys, Linux
//! Documentation/staging/static-keys.rst) when the first machine that needs one comes and off when
//! the last one goes. While it does, there is an `int3` for a moment where another CPU may run;
//! QEMU 7.2's multi-threaded translator can keep that `int3` and then never gets past it. With
//! machines that stay open until power-off every key is switched once, before the command runs and before there is another
//! CPU ([`processors`](crate::processors)).
//!
//! The compiler of packet filters patches too: all programs share pages, and each daemon that starts brings
//! seccomp filters, which go with it. In the lab they are interpreted.

use std::fs;

use anyhow::{Context, Result};
use kvm_ioctls::Kvm;

/// APIC base register: the APIC's global enable bit (Intel SDM volume 3, section 11.4.3).
const APIC_ENABLED: u64 = 1 << 11;

/// Whether the kernel compiles filters (Linux Documentation/admin-guide/sysctl/net.rst).
const COMPILES_FILTERS: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Switches the compiler of filters off, and opens one machine for each key and leaves them open.
pub(crate) fn hold() -> Result<()> {
    fs::write(COMPILES_FILTERS, "0")
        .with_context(|| format!("cannot switch off {COMPILES_FILTERS} in the lab"))?;
    let kvm = Kvm::new().context("the lab's kernel offers no KVM (is kvm-amd loaded?)")?;
    hold_all(&kvm).context("cannot keep KVM switched on in the lab")
}

fn hold_all(kvm: &Kvm) -> Result<(), kvm_ioctls::Error> {
    // The user return and preemption notifiers: a processor in use, with its interrupt chips.
    let with_chips = kvm.create_vm()?;
    with_chips.create_irq_chip()?;
    let plain = with_chips.create_vcpu(0)?;
    // apic_hw_disabled: a processor whose APIC is switched off.
    let apic_off = kvm.create_vm()?;
    apic_off.create_irq_chip()?;
    let without_apic = apic_off.create_vcpu(0)?;
    let mut registers = without_apic.get_sregs()?;
    registers.apic_base &= !APIC_ENABLED;
    without_apic.set_sregs(&registers)?;
    // kvm_has_noapic_vcpu: a processor whose APIC user space plays.
    let no_chips = kvm.create_vm()?;
    let user_space_apic = no_chips.create_vcpu(0)?;
    // This process is PID 1: it ends with the machine, and so do these.
    std::mem::forget([plain, without_apic, user_space_apic]);
    std::mem::forget([with_chips, apic_off, no_chips]);
    Ok(())
}

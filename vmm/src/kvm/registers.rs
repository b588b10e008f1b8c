//! A processor's state when it starts.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::KvmError;
use super::error::failed;
use crate::boot::{Entry, GDT_LIMIT, Protocol, Segment};
use crate::layout;

/// Bit 1 of RFLAGS is always set.
pub(super) const RFLAGS: u64 = 2;

/// CR0: protection enable, extension type, paging (Intel SDM volume 3, 2.5).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
/// CR4: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// IA32_EFER: long mode enable, long mode active.
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// x87 control word and MXCSR after a reset (Intel SDM volume 3, table 9-1).
const X87_CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// Model-specific registers of every processor: fast string operations on; memory types on, and
/// write-back where no range says otherwise (Intel SDM volume 4, 2.1; volume 3, 11.11.2.1).
const MSRS: [(u32, u64); 2] = [(0x1a0, 1), (0x2ff, 1 << 11 | 6)];

/// What every processor starts with.
pub(super) fn set_common(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let fpu = kvm_fpu {
        fcw: X87_CONTROL,
        mxcsr: MXCSR,
        ..kvm_fpu::default()
    };
    vcpu.set_fpu(&fpu)
        .map_err(failed("set floating point registers"))?;
    let entries = MSRS.map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&entries)
        .map_err(|_| KvmError::TooMany(entries.len(), "model-specific registers"))?;
    let set = vcpu
        .set_msrs(&msrs)
        .map_err(failed("set model-specific registers"))?;
    MSRS.get(set)
        .map_or(Ok(()), |(refused, _)| Err(KvmError::Msr(*refused)))
}

/// The first processor's way into the kernel. The others wait for it to start them.
pub(super) fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), KvmError> {
    let mut special = vcpu.get_sregs().map_err(failed("read system registers"))?;
    set_segments(&mut special, entry);
    special.cr0 = CR0_PE | CR0_ET;
    special.cr3 = 0;
    special.cr4 = 0;
    special.efer = 0;
    if entry.protocol == Protocol::Linux {
        special.gdt.base = layout::GDT;
        special.gdt.limit = GDT_LIMIT;
        special.cr0 |= CR0_PG;
        special.cr3 = layout::PAGE_TABLES;
        special.cr4 |= CR4_PAE;
        special.efer |= EFER_LME | EFER_LMA;
    }
    vcpu.set_sregs(&special)
        .map_err(failed("set system registers"))?;
    let information = entry.information();
    let mut registers = kvm_regs {
        rip: entry.address,
        rflags: RFLAGS,
        ..kvm_regs::default()
    };
    match entry.protocol {
        Protocol::Linux => registers.rsi = information,
        Protocol::Pvh => registers.rbx = information,
    }
    vcpu.set_regs(&registers).map_err(failed("set registers"))
}

/// 32-bit code from address 0 on, for the probe.
pub(super) fn enter_protected_mode(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let mut special = vcpu.get_sregs().map_err(failed("read system registers"))?;
    let entry = Entry {
        address: 0,
        protocol: Protocol::Pvh,
    };
    set_segments(&mut special, entry);
    special.cr0 |= CR0_PE;
    vcpu.set_sregs(&special)
        .map_err(failed("set system registers"))
}

fn set_segments(special: &mut kvm_sregs, entry: Entry) {
    let (code, data) = entry.segments();
    special.cs = flat(code);
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *segment = flat(data);
    }
    special.tr = task();
}

fn flat(segment: Segment) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: segment.selector,
        type_: segment.kind,
        present: 1,
        dpl: 0,
        db: segment.big.into(),
        s: 1,
        l: segment.long.into(),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// A busy 32-bit task, which both protocols and Intel's entry checks want (Intel SDM volume 3, 26.3.1.2).
fn task() -> kvm_segment {
    const BUSY_TASK: u8 = 0b1011;
    kvm_segment {
        limit: 0x67,
        type_: BUSY_TASK,
        present: 1,
        ..kvm_segment::default()
    }
}

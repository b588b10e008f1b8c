//! The smallest guest that counts: one page of 32-bit ring-0 code.

use std::ptr;

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::ProbeError;

/// `dec` and `jnz`.
pub(super) const INSTRUCTIONS_PER_TURN: u128 = 2;

/// `1: dec ecx; jnz 1b; hlt; jmp 1b`: halts when the count is zero.
const CODE: [u8; 6] = [0x49, 0x75, 0xfd, 0xf4, 0xeb, 0xfa];

const PAGE: usize = 4096;
const LOAD_ADDRESS: u64 = 0x1000;

/// Protection enable, bit 0 of CR0 (Intel SDM volume 3, section 2.5).
const CR0_PE: u64 = 1;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;
/// Segment types: code, execute and read, accessed; data, read and write, accessed.
const CODE_SEGMENT: u8 = 0b1011;
const DATA_SEGMENT: u8 = 0b0011;

/// A machine with one processor and one page. Fields drop in order: the memory goes last.
pub(super) struct CountingGuest {
    pub(super) vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Page,
}

impl CountingGuest {
    pub(super) fn new() -> Result<Self, ProbeError> {
        let kvm = Kvm::new().map_err(failed("open /dev/kvm"))?;
        let vm = kvm.create_vm().map_err(failed("make a virtual machine"))?;
        let memory = Page::with_code()?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: LOAD_ADDRESS,
            memory_size: PAGE as u64,
            userspace_addr: memory.0 as u64,
        };
        // SAFETY: the page stays mapped until after the machine is gone, and nothing else uses it.
        unsafe { vm.set_user_memory_region(region) }.map_err(failed("give the guest memory"))?;
        let vcpu = vm
            .create_vcpu(0)
            .map_err(failed("make a virtual processor"))?;
        enter_protected_mode(&vcpu)?;
        Ok(Self {
            vcpu,
            _vm: vm,
            _memory: memory,
        })
    }

    pub(super) fn set_turns(&mut self, turns: u32) -> Result<(), ProbeError> {
        let mut registers = self.vcpu.get_regs().map_err(failed("read registers"))?;
        registers.rip = LOAD_ADDRESS;
        registers.rcx = turns.into();
        registers.rflags = RFLAGS;
        self.vcpu
            .set_regs(&registers)
            .map_err(failed("set registers"))
    }
}

fn enter_protected_mode(vcpu: &VcpuFd) -> Result<(), ProbeError> {
    let mut registers = vcpu.get_sregs().map_err(failed("read system registers"))?;
    registers.cr0 |= CR0_PE;
    registers.cs = flat(CODE_SEGMENT, 0x08);
    for segment in [&mut registers.ds, &mut registers.es, &mut registers.ss] {
        *segment = flat(DATA_SEGMENT, 0x10);
    }
    vcpu.set_sregs(&registers)
        .map_err(failed("set system registers"))
}

fn flat(kind: u8, selector: u16) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

fn failed(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> ProbeError {
    move |source| ProbeError::Kvm { step, source }
}

/// One page of anonymous memory with the code at its start.
struct Page(*mut u8);

impl Page {
    fn with_code() -> Result<Self, ProbeError> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address the kernel picks touches no other memory.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE) }
            .map_err(ProbeError::Memory)?
            .cast::<u8>();
        // SAFETY: the page was just mapped writable, is longer than the code, and is ours alone.
        unsafe { ptr::copy_nonoverlapping(CODE.as_ptr(), page, CODE.len()) };
        Ok(Self(page))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and the machine that used it is gone. Failing to unmap a
        // page that exists cannot happen, and would only leak it.
        let _ = unsafe { munmap(self.0.cast(), PAGE) };
    }
}

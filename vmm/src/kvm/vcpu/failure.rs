//! Why a processor cannot go on, and what it was doing.

use std::fmt;

use kvm_ioctls::{VcpuExit, VcpuFd};

/// Why a processor stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    reason: String,
    registers: String,
}

impl Stopped {
    pub(super) fn by(exit: &VcpuExit<'_>) -> Self {
        let reason = match exit {
            VcpuExit::Shutdown => {
                "a triple fault: an exception that the guest's kernel could not handle".into()
            }
            VcpuExit::InternalError => {
                "an internal error of KVM: an instruction that it cannot emulate".into()
            }
            VcpuExit::FailEntry(reason, _) => {
                format!("an entry that the processor refused, reason {reason:#x}")
            }
            VcpuExit::Hlt => "a halt that KVM did not handle".into(),
            other => format!("{other:?}"),
        };
        Self::because(reason)
    }

    pub(super) fn failed(error: kvm_ioctls::Error) -> Self {
        Self::because(format!("an error of KVM: {error}"))
    }

    /// It was not allowed to begin.
    pub(super) fn unconfined(error: &dyn std::error::Error) -> Self {
        Self::because(format!("its list of system calls: {error}"))
    }

    fn because(reason: String) -> Self {
        Self {
            reason,
            registers: String::new(),
        }
    }

    pub(super) fn with_registers(mut self, vcpu: &VcpuFd) -> Self {
        self.registers = registers(vcpu);
        self
    }
}

/// The registers that tell where a processor is.
pub(super) fn registers(vcpu: &VcpuFd) -> String {
    let (Ok(general), Ok(special)) = (vcpu.get_regs(), vcpu.get_sregs()) else {
        return "registers unknown".into();
    };
    let fields = [
        ("rip", general.rip),
        ("rsp", general.rsp),
        ("rflags", general.rflags),
        ("rax", general.rax),
        ("rbx", general.rbx),
        ("rcx", general.rcx),
        ("rdx", general.rdx),
        ("rsi", general.rsi),
        ("rdi", general.rdi),
        ("cr0", special.cr0),
        ("cr2", special.cr2),
        ("cr3", special.cr3),
        ("cr4", special.cr4),
        ("efer", special.efer),
        ("cs", special.cs.selector.into()),
    ];
    let words = fields.map(|(name, value)| format!("{name}={value:#x}"));
    words.join(" ")
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.registers)
    }
}

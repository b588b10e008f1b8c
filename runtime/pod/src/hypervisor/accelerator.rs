use crate::kvm;

/// How guest code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// On the processor.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

impl Accelerator {
    /// KVM where it runs ring-0 code at the processor's speed, else QEMU's translator.
    #[must_use]
    pub fn detect() -> Self {
        match kvm::probe() {
            Ok(speed) if speed.is_native() => Self::Kvm,
            Ok(_) | Err(_) => Self::Tcg,
        }
    }
}

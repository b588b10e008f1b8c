//! Who runs containers.

use guest_image::{Cache, Kernel};

use super::containerd::Runtime;
use crate::findings::{Findings, SCHEMA};
use crate::host::HostFacts;
use crate::scenario::Role;

/// A runtime that takes turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contestant {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) runtime: Runtime,
}

const RUNC: Contestant = Contestant {
    name: "runc",
    role: Role::Peer,
    runtime: Runtime::Runc,
};
const QEMU: Contestant = Contestant {
    name: "ringside on QEMU",
    role: Role::Ours,
    runtime: Runtime::Ringside("qemu"),
};
const VMM: Contestant = Contestant {
    name: "ringside on its VMM",
    role: Role::Ours,
    runtime: Runtime::Ringside("vmm"),
};

/// Everybody who can take part here, and who cannot with the reason.
pub(super) fn line_up() -> (Vec<Contestant>, Vec<String>) {
    match has_kvm() {
        true => (vec![VMM, QEMU, RUNC], Vec::new()),
        false => {
            let why = "ringside on its own VMM: KVM is not native here";
            (vec![QEMU, RUNC], vec![why.to_owned()])
        }
    }
}

/// Our pods as `auto` has them.
pub(super) fn ours() -> Contestant {
    if has_kvm() { VMM } else { QEMU }
}

fn has_kvm() -> bool {
    ringside::kvm::probe().is_ok_and(|speed| speed.is_native())
}

/// What the guests of this machine run on.
pub(super) fn machine() -> &'static str {
    match has_kvm() {
        true => {
            "Guests run on KVM, our VMM's and QEMU's; inside the lab the whole machine is translated by QEMU."
        }
        false => {
            "KVM is not native here: QEMU translates the guests (TCG), while runc's containers run at full speed."
        }
    }
}

/// The kernel that guests boot: what a pod takes and how soon it says something is most of all the kernel's.
pub(super) fn kernel() -> Result<String, guest_image::Error> {
    let cache = Cache::open_default()?;
    let kernel = Kernel::for_guests(&cache)?;
    let whose = match Kernel::slim(&cache) {
        Some(slim) if slim == kernel => "the slim kernel of `make guest-kernel`",
        _ => "the distribution's kernel",
    };
    Ok(format!("Guests boot Linux {}, {whose}.", kernel.version))
}

/// A report without figures.
pub(super) fn empty(scenario: &str, method: Vec<String>) -> Findings {
    Findings {
        schema: SCHEMA.to_owned(),
        scenario: scenario.to_owned(),
        host: HostFacts::read(),
        method,
        complete: true,
        skipped: Vec::new(),
        groups: Vec::new(),
        verdicts: Vec::new(),
    }
}

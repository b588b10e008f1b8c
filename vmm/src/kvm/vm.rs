//! One virtual machine: what it has besides processors.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_clock_data};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::KvmError;
use super::error::failed;
use super::probe::{self, Speed};
use crate::layout;
use crate::memory::GuestMemory;

const API_VERSION: i32 = 12;

/// What the machine cannot do without, and what to call it.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "interrupt controllers (KVM_CAP_IRQCHIP)"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// The host's KVM. It stays open: machines are made of it also where /dev is out of reach.
#[derive(Debug, Clone)]
pub struct HostKvm(Arc<Kvm>);

impl HostKvm {
    /// Opens /dev/kvm.
    ///
    /// # Errors
    /// When it is missing or closed to this user.
    pub fn open() -> Result<Self, KvmError> {
        Ok(Self(Arc::new(Kvm::new().map_err(KvmError::Open)?)))
    }
}

/// A virtual machine with memory and interrupt controllers, and no processor yet.
#[derive(Debug)]
pub struct Vm {
    pub(super) kvm: Arc<Kvm>,
    pub(super) fd: VmFd,
    pub(super) cpuid: CpuId,
    pub(super) tsc_deadline: bool,
    /// Message routes by interrupt number; the table in the kernel is always this one.
    routes: Mutex<Routes>,
    /// KVM reads it for as long as the machine exists.
    pub(super) memory: GuestMemory,
}

type Routes = std::collections::BTreeMap<u32, Message>;

/// What an interrupt message is: a write of `data` to `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where the device writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

impl Vm {
    /// Makes the machine.
    ///
    /// # Errors
    /// When the host's KVM is too old, or has no room for it.
    pub fn new(
        host: &HostKvm,
        memory: &GuestMemory,
        processors: u8,
    ) -> Result<Arc<Self>, KvmError> {
        let kvm = host.0.clone();
        check(&kvm, processors)?;
        let fd = kvm.create_vm().map_err(failed("make a virtual machine"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("tell what the processor can"))?;
        let vm = Self {
            fd,
            cpuid,
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            kvm,
            routes: Mutex::default(),
            memory: memory.clone(),
        };
        vm.reserve_addresses()?;
        vm.fd
            .create_irq_chip()
            .map_err(failed("make interrupt controllers"))?;
        vm.map_memory()?;
        Ok(Arc::new(vm))
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Bytes of the guest's memory.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.memory.size()
    }

    /// Runs a short ring-0 loop on `vcpu`, before it is set up.
    ///
    /// # Errors
    /// When the loop cannot be run.
    pub(super) fn probe(&self, vcpu: &mut VcpuFd) -> Result<Speed, KvmError> {
        probe::measure(vcpu, &self.memory)
    }

    /// Lets an event cause an interrupt.
    ///
    /// # Errors
    /// When the number has no route, or the event is used already.
    pub fn connect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError> {
        self.fd
            .register_irqfd(event, number)
            .map_err(failed("connect an interrupt"))
    }

    /// Undoes [`connect_interrupt`](Self::connect_interrupt): the event keeps what it counts.
    ///
    /// # Errors
    /// When it was not connected.
    pub fn disconnect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError> {
        self.fd
            .unregister_irqfd(event, number)
            .map_err(failed("disconnect an interrupt"))
    }

    /// Lets a guest's two-byte write to an address signal an event, without an exit to us.
    ///
    /// # Errors
    /// When something else is at this address.
    pub fn connect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        self.fd
            .register_ioevent(event, &IoEventAddress::Mmio(address), KICK)
            .map_err(failed("connect a kick"))
    }

    /// Undoes [`connect_kick`](Self::connect_kick).
    ///
    /// # Errors
    /// When it was not connected.
    pub fn disconnect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        self.fd
            .unregister_ioevent(event, &IoEventAddress::Mmio(address), KICK)
            .map_err(failed("disconnect a kick"))
    }

    /// Sets or removes what interrupt `number` sends.
    ///
    /// # Errors
    /// When KVM has no room for it.
    pub fn route_message(&self, number: u32, message: Option<Message>) -> Result<(), KvmError> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match message {
            Some(message) => routes.insert(number, message),
            None => routes.remove(&number),
        };
        if before == message {
            return Ok(());
        }
        self.fd
            .set_gsi_routing(&super::routes::table(&routes)?)
            .map_err(failed("route interrupts"))
    }

    /// The guest's clock in nanoseconds, for [`set_clock`](Self::set_clock).
    ///
    /// # Errors
    /// When KVM does not tell it.
    pub fn clock(&self) -> Result<u64, KvmError> {
        let clock = self.fd.get_clock().map_err(failed("tell its clock"))?;
        Ok(clock.clock)
    }

    /// Lets the guest's clock go on from there: time that it was paused does not count.
    ///
    /// # Errors
    /// When KVM does not take it.
    pub fn set_clock(&self, nanoseconds: u64) -> Result<(), KvmError> {
        let clock = kvm_clock_data {
            clock: nanoseconds,
            ..kvm_clock_data::default()
        };
        self.fd.set_clock(&clock).map_err(failed("set its clock"))
    }

    fn reserve_addresses(&self) -> Result<(), KvmError> {
        self.fd
            .set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(failed("place its identity map"))?;
        let tss = usize::try_from(layout::KVM_TSS).map_err(|_| KvmError::Missing("64 bits"))?;
        self.fd
            .set_tss_address(tss)
            .map_err(failed("place its task state"))
    }
}

/// Only the address counts: the queue's number is what a driver writes, and each has its own address.
const KICK: kvm_ioctls::NoDatamatch = kvm_ioctls::NoDatamatch;

fn check(kvm: &Kvm, processors: u8) -> Result<(), KvmError> {
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(KvmError::ApiVersion(version));
    }
    for (capability, name) in NEEDED {
        if !kvm.check_extension(capability) {
            return Err(KvmError::Missing(name));
        }
    }
    let most = kvm.get_max_vcpus();
    if usize::from(processors) > most {
        return Err(KvmError::Processors {
            wanted: processors,
            most,
        });
    }
    Ok(())
}

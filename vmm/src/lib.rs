//! A minimal KVM virtual machine monitor. Its devices are vhost-user daemons: it holds the guest's
//! memory, processors and PCI bus, and passes queues on to whoever serves them.
//!
//! `docs/vmm.md` shows how the parts work together.

pub mod acpi;
pub mod api;
pub mod boot;
pub mod console;
pub mod devices;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod options;
pub mod pci;
pub mod snapshot;
pub mod system_calls;
pub mod vhost_user;
pub mod virtio;

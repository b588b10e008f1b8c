//! A pod in a virtual machine of its own.
//!
//! [`Pod::start`] makes a [run directory](directory), starts the daemons and the hypervisor that
//! the machine is made of ([`parts`], [`hypervisor`]) and talks to the agent in the guest
//! ([`agent`], [`stream`]). What containers see of the host is bind-mounted below one shared
//! directory ([`share`]); [`spec`] turns the OCI specification that a container engine wrote for
//! this host into one for the guest. [`cleanup`] removes what a killed owner left behind.
//!
//! The owner of a pod is single-threaded as far as parts are concerned: the kernel kills a part
//! when the thread that started it ends, so [`Pod::start`] must run on a thread that lives as long
//! as the pod, as tokio's `current_thread` runtime does.

pub mod agent;
pub mod cleanup;
mod daemons;
pub mod directory;
mod disk;
mod error;
mod event;
pub mod grouping;
pub mod hook;
pub mod hypervisor;
pub mod identity;
pub mod kvm;
mod log;
mod machine;
mod network;
pub mod parts;
mod plug;
mod pod;
pub mod proc;
pub mod programs;
pub mod share;
pub mod spec;
pub mod stream;
mod sys;
mod tap;

pub use daemons::VSOCK;
pub use disk::PodDisk;
pub use error::{PodError, chain};
pub use event::PodEvent;
pub use machine::VMM_API;
#[cfg(any(test, feature = "played"))]
pub use pod::played;
pub use pod::{Files, HypervisorChoice, Pod, PodConfig, ROOT_TAG};
pub use sys::namespace::enter_mount_namespace;
pub use tap::TapNetwork;

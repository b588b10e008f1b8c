//! Containers in microVMs: the `ringside` command line.
//!
//! One run is a [`run::Config`] that cannot be wrong any more, a directory of its own, a few
//! daemons, one hypervisor and one command in the guest. The modules follow that order:
//! [`options`] turns what was typed into configurations, [`run`] starts the parts, relays the
//! streams and ends everything, [`hypervisor`] knows how a machine is started, [`network`] makes a
//! namespace with a tap, [`disk_image`] makes ext4 images, [`check`] says what this host lacks,
//! [`configuration`] and [`environment`] what is in use. [`oci`] is the other way to a container: an OCI
//! runtime's verbs, on containerd's shim.

pub mod check;
pub mod configuration;
pub mod disk_image;
pub mod environment;
pub mod network;
pub mod oci;
pub mod options;
pub mod run;
mod sys;

pub use ringside_pod::{hypervisor, kvm, programs};

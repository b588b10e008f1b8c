#![doc = include_str!("../README.md")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "an input that breaks a promise ends the run by panicking"
)]

mod function;
mod playground;
mod queue;
mod sys;

pub mod agent_request;
pub mod blk_control;
pub mod blk_qcow2;
pub mod blk_request;
pub mod config;
pub mod fs_decode;
pub mod fs_options;
pub mod fs_request;
pub mod fs_state;
pub mod guest_notice;
pub mod in_flight;
pub mod net_command;
pub mod net_frame;
pub mod pod_spec;
pub mod ring;
pub mod session;
pub mod vmm_api;
pub mod vmm_config;
pub mod vmm_kernel;
pub mod vmm_pci;
pub mod vmm_snapshot;
pub mod vsock_packet;

/// A target's name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a file in `fuzz_targets/` and inputs in `seeds/`.
pub const TARGETS: [Target; 22] = [
    ("agent_request", agent_request::run),
    ("blk_control", blk_control::run),
    ("blk_qcow2", blk_qcow2::run),
    ("blk_request", blk_request::run),
    ("config", config::run),
    ("fs_decode", fs_decode::run),
    ("fs_options", fs_options::run),
    ("fs_request", fs_request::run),
    ("fs_state", fs_state::run),
    ("guest_notice", guest_notice::run),
    ("in_flight", in_flight::run),
    ("net_command", net_command::run),
    ("net_frame", net_frame::run),
    ("pod_spec", pod_spec::run),
    ("ring", ring::run),
    ("session", session::run),
    ("vmm_api", vmm_api::run),
    ("vmm_config", vmm_config::run),
    ("vmm_kernel", vmm_kernel::run),
    ("vmm_pci", vmm_pci::run),
    ("vmm_snapshot", vmm_snapshot::run),
    ("vsock_packet", vsock_packet::run),
];

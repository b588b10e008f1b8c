//! The unsafe part: processes, signals, mounts and ids by raw system calls.
#![allow(
    unsafe_code,
    reason = "fork, signal masks and raw system calls; each block states why its conditions hold"
)]

mod ids;
mod mounts;
mod process;
mod signals;
mod violation;

pub(super) use ids::{become_root_if_mapped, leave_groups};
pub(super) use mounts::restrict_mounts;
pub use process::close_inherited;
pub(super) use process::{close_all_but, end_by, exit_now, fork, threads, unshare};
pub(super) use signals::SignalSet;
pub(super) use violation::report_violations;

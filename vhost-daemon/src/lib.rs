//! What Ringside's vhost-user daemons share.
//!
//! The way of a request: guest ring → [`queue::RunningQueue::pop`] → validated
//! [`queue::Chain`] → the device's [`worker::QueueWorker`] → [`worker::Io`] on the queue's own
//! io_uring → completion → [`worker::Context::complete`] → used ring → at most one interrupt per
//! batch.
//!
//! One thread owns one queue from start to stop. Control code ([`session`]) only starts, pauses
//! and stops workers; it never touches a running ring.

pub mod boot_id;
pub mod control;
pub mod daemon;
pub mod file_lock;
pub mod key_values;
pub mod listen;
pub mod log;
pub mod memory;
pub mod messages;
pub mod metrics;
pub mod options;
pub mod patience;
pub mod queue;
pub mod rate;
pub mod sandbox;
pub mod session;
pub mod shutdown;
pub mod sys;
pub mod wakeup;
pub mod worker;

pub use session::{Device, Transfer, serve};

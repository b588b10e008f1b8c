//! A vhost-user file system daemon (virtio-fs).
//!
//! The way of a request: guest ring → [`worker`] (header and arguments copied out of guest memory
//! once) → [`server`] (decode, dispatch, reply) → a [`file_system::GuestFileSystem`] such as
//! [`passthrough`]. File data go between the host's file and guest memory, moved by the
//! queue's thread or its io_uring ([`medium`]).

pub mod device;
pub mod file_system;
pub mod fuse;
pub mod helpers;
pub mod keeper;
pub mod limits;
pub mod medium;
pub mod options;
pub mod passthrough;
pub mod server;
pub mod state;
mod sys;
pub mod system_calls;
pub mod worker;
pub mod write_mode;

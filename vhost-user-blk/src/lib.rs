//! A vhost-user block device on io_uring.
//!
//! The way of a request: [`worker`] takes it from the ring, [`request`] parses it (pure), the
//! [`storage`] says which kernel operation (or which [task](tasks) of several) serves it, operations
//! run on the queue's io_uring with guest memory as their buffer, and the worker writes the status byte.

pub mod config_space;
pub mod control;
pub mod device;
pub mod disks;
pub mod limits;
pub mod options;
pub mod request;
pub mod storage;
pub mod system_calls;
pub mod tasks;
pub mod worker;
pub mod write_cache;

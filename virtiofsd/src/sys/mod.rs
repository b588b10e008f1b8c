//! The room for unsafe code: memory layout, thread state, and system calls without a safe wrapper.
#![allow(unsafe_code, reason = "each block states why its conditions hold")]

mod credentials;
mod descriptors;
mod file_handle;
mod groups;
mod locks;
mod pod;
mod stat;
mod thread_files;
mod volatile;

pub(crate) use credentials::{CredentialsGuard, FsetidGuard, act_as, without_fsetid};
pub(crate) use descriptors::close_reporting;
pub(crate) use file_handle::FileHandle;
pub(crate) use groups::group_named;
pub(crate) use locks::{OfdLock, ofd_lock_in_the_way, set_ofd_lock};
pub use pod::Pod;
pub(crate) use pod::{bytes_of, read_front};
pub(crate) use stat::{FileStatus, file_system_status, status_at, status_of};
pub(crate) use thread_files::{enter_descriptor_directory, use_umask};
pub(crate) use volatile::{BuffersReader, BuffersWriter};

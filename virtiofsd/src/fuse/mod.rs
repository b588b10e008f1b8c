//! The FUSE protocol (Linux, `include/uapi/linux/fuse.h`): numbers and structures.
//!
//! fuse-backend-rs has the ABI up to 7.33; what later minors added is here.

pub mod abi;
mod features;
mod opcode;

pub use crate::sys::Pod;
pub use features::Features;
pub use opcode::Opcode;

/// Major version of the protocol.
pub const MAJOR: u32 = 7;

/// The newest minor version that this server speaks.
pub const MINOR: u32 = 45;

/// The oldest minor version that this server speaks: the first after which the structures of
/// every request and reply kept their size.
pub const OLDEST_MINOR: u32 = 27;

/// Node of the mount's root.
pub const ROOT: u64 = fuse_backend_rs::abi::fuse_abi::ROOT_ID;

/// Longest name, without its NUL, that the kernel sends (`FUSE_NAME_MAX`).
pub const NAME_MAX: usize = 1024;

/// Longest path, with its NUL (`PATH_MAX`): the bound of a symbolic link's target.
pub const PATH_MAX: usize = 4096;

/// Largest value of an extended attribute in bytes (`XATTR_SIZE_MAX`).
pub const XATTR_SIZE_MAX: usize = 65536;

/// Longest name of an extended attribute, without its NUL (`XATTR_NAME_MAX`).
pub const XATTR_NAME_MAX: usize = 255;

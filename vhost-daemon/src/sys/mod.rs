//! The room where `unsafe` lives: raw guest memory, io_uring, thread attributes.
#![allow(
    unsafe_code,
    reason = "guest memory and io_uring are reached through raw pointers; every other module is safe"
)]

mod aligned;
mod buffers;
mod descriptors;
mod dirty_log;
mod guarded_memory;
mod inline;
mod interruption;
mod io;
mod lost_memory;
mod mapped_file;
#[cfg_attr(miri, path = "mapping_by_copy.rs")]
mod mapping;
mod peer;
mod reactor;
mod shared_words;
mod split_ring;
mod thread;
mod zeroed;

pub use buffers::{Buffers, OutOfGuestMemory};
pub(crate) use descriptors::end_abandoned;
pub use descriptors::{adopt_fd, is_readable};
pub use dirty_log::{DirtyLog, RegionLog};
pub use guarded_memory::GuardedMemory;
pub(crate) use interruption::{expect_interruption, interrupt_thread};
pub use io::{Io, IoFile};
pub use lost_memory::TooManyRanges;
pub(crate) use lost_memory::expect_lost_memory;
pub use mapped_file::MappedFile;
pub use peer::{peer_process, peer_user};
pub use reactor::{Event, Reactor, WatchId};
pub use shared_words::SharedWords;
pub use split_ring::{DESCRIPTOR_BYTES, Descriptor, SplitRing};
pub use thread::name_current_thread;
pub use zeroed::zeroed_words;

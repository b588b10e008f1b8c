//! Machines and front ends for tests: QEMU and UML guests, a vhost-user front end of our own.
//!
//! Product code never depends on this crate; the daemons use it as a dev-dependency.
//!
//! - [`bridge`]: mount a file system daemon on the host's own kernel.
//! - [`frontend`]: act as the guest's driver at native speed, well-behaved or hostile.
//! - [`guest`]: boot a real Linux on the daemons, under QEMU or as User-Mode Linux.
//! - [`inside`]: what the kernel says of a daemon: namespaces, capabilities, filters, descriptors.
//! - [`machine`]: run a command where KVM is real: a machine with the host's files.
//! - [`medium`]: a file system below what a daemon serves, which records changes and answers late.
//! - [`process`]: start a daemon under test, read what it says, see it end.
//! - [`scratch`]: a directory that vanishes with the test.
//! - [`netns`]: a network of the test's own, with taps.
//! - [`mounts`]: mounts that go with the test, whatever happens to it.
//! - [`containerd`]: how one of a test's own is configured.
//! - [`inside`], [`view`]: what the kernel says of a process that is closed in.
//! - [`traces`]: what is left on a host that was not there before.
//! - [`need`]: what a test requires of the host, missing things fail with one sentence.

pub mod bridge;
mod bytes;
pub mod containerd;
pub mod frontend;
pub mod guest;
pub mod inside;
pub mod machine;
pub mod medium;
pub mod mounts;
pub mod need;
pub mod netns;
pub mod process;
mod random;
pub mod scratch;
mod sys;
pub mod traces;
pub mod view;

pub use bytes::pattern;
pub use random::Random;
pub use sys::event::Event;

//! Who is measured: our daemon, Debian's, any other that runs already, and fio as the limit.

mod external;
pub mod fio;
mod ours;
mod qsd;
mod running;

pub use external::{ExternalPeer, ParsePeerError};
pub use ours::{BuildError, OurBuild, Takes, find as find_ours};
pub use qsd::{Aio, Qsd};
pub use running::{RunningDaemon, StartError, version};

use std::path::Path;

/// What a daemon is to serve.
#[derive(Clone, Copy, Debug)]
pub enum Backing<'a> {
    /// A file.
    File {
        /// Its path.
        path: &'a Path,
        /// Whether to go past the page cache.
        direct: bool,
    },
    /// Nothing: requests succeed at once.
    Null {
        /// Bytes it pretends to have.
        bytes: u64,
    },
}

//! Real guests whose front ends none of us wrote: Linux under QEMU, and User-Mode Linux.
//!
//! A guest boots, runs one shell script and ends; the script's output and exit code come back.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lab::guest::QemuGuest;
//!
//! let output = QemuGuest::new("cat /sys/block/vda/size")
//!     .blk("/tmp/blk.sock")
//!     .run()?
//!     .success()?;
//! assert_eq!(output.trim(), "32768");
//! # Ok(())
//! # }
//! ```

mod error;
mod initramfs;
mod programs;
mod qemu;
mod running;
mod uml;

pub use error::Error;
pub(crate) use error::{CONSOLE_LINES, evidence};
pub use qemu::{QemuGuest, VhostUser};
pub use running::{Guest, Outcome};
pub use uml::UmlGuest;

//! Builds the guest's kernel and initramfs out of Debian packages.
//!
//! The kernel is Debian's `linux-image-cloud-amd64`: the one of the host when it is installed,
//! else the package is downloaded and unpacked into a [`Cache`] without being installed, so no
//! boot loader is touched. Its bzImage is unpacked to the ELF `vmlinux` that every VMM can start
//! directly, and an initramfs is made of an init program and the few modules a virtio guest needs.
//!
//! ```no_run
//! use guest_image::{Cache, GuestImage, Kernel};
//! # fn main() -> Result<(), guest_image::Error> {
//! let cache = Cache::open_default()?;
//! let kernel = Kernel::obtain(&cache)?;
//! let image = GuestImage::build(&cache, &kernel, "ringside-agent".as_ref(), guest_image::MODULES)?;
//! println!("{} {}", image.vmlinux.display(), image.initramfs.display());
//! # Ok(())
//! # }
//! ```

mod cache;
pub mod cpio;
mod error;
mod image;
mod kernel;
mod modules;
mod package;
mod payload;
mod slim;
mod sys;
mod tool;

pub use cache::Cache;
pub use error::Error;
pub use image::GuestImage;
pub use kernel::{Flavour, Kernel, KernelSource};
pub use modules::ModuleIndex;
pub use package::unpacked;
pub use payload::{Payload, PayloadFormat};

/// The modules a Ringside guest loads, without their dependencies; what a kernel has built in or
/// does not know is left out.
pub const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtiofs",
    "virtio_blk",
    "crc32c_intel",
    "ext4",
    "virtio_net",
    "af_packet",
    "overlay",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
];

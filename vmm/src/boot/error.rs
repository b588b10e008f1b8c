use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::memory::ByteSize;

/// Why a guest cannot be started.
#[derive(Debug, Error)]
pub enum BootError {
    /// A file that cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither kind of kernel.
    #[error("{}: neither a bzImage nor a 64-bit x86 ELF kernel", .0.display())]
    NotKernel(PathBuf),
    /// The loader refuses it.
    #[error("cannot load the kernel {}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's reason.
        source: linux_loader::loader::Error,
    },
    /// A bzImage of a 32-bit kernel, or of one before Linux 3.8.
    #[error("{}: this bzImage has no 64-bit entry point", .0.display())]
    No64BitEntry(PathBuf),
    /// PVH was asked for, and is not there.
    #[error("{}: this kernel has no PVH entry point; leave --boot-protocol out", .0.display())]
    NoPvh(PathBuf),
    /// The kernel is too large.
    #[error("{} needs memory up to {needed}; give the guest more with --memory", path.display())]
    KernelFit {
        /// The file.
        path: PathBuf,
        /// End of the memory that the kernel needs.
        needed: ByteSize,
    },
    /// The kernel would begin where it cannot be.
    #[error("{}: this kernel's entry point, {address:#x}, is not in the guest's low memory", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// What it names.
        address: u64,
    },
    /// The initramfs is too large.
    #[error("{} ({size}) does not fit behind the kernel; give the guest more with --memory", path.display())]
    InitramfsFit {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: ByteSize,
    },
    /// The command line is too long.
    #[error("--cmdline has {len} bytes, this kernel takes {most}")]
    CommandLineLength {
        /// Its length.
        len: usize,
        /// What the kernel takes.
        most: usize,
    },
    /// The command line has bytes that no kernel reads.
    #[error("--cmdline has a zero byte or a line break")]
    CommandLineBytes,
    /// Something does not fit into memory; cannot happen with memory of the smallest size.
    #[error("cannot write {0} into the guest's memory")]
    Write(&'static str),
}

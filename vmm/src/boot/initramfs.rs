//! The initramfs lies as high below the hole as the kernel can take it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::kernel::Kernel;
use super::{BootError, NamedFile};
use crate::layout;
use crate::memory::{ByteSize, GuestMemory};

/// Where the initramfs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Initramfs {
    pub(super) address: u64,
    pub(super) size: u64,
}

pub(super) fn load(
    named: &NamedFile,
    memory: &GuestMemory,
    kernel: &Kernel,
) -> Result<Initramfs, BootError> {
    let read = |source| BootError::Read {
        path: named.path.clone(),
        source,
    };
    let mut file: &File = &named.file;
    let size = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.rewind().map_err(read)?;
    let address = place(
        size,
        memory.low_end().min(kernel.initramfs_end()),
        kernel.end,
    )
    .ok_or_else(|| BootError::InitramfsFit {
        path: named.path.clone(),
        size: ByteSize(size),
    })?;
    let len = usize::try_from(size).map_err(|_| BootError::Write("the initramfs"))?;
    memory
        .mapped()
        .read_exact_volatile_from(GuestAddress(address), &mut file, len)
        .map_err(|error| read(reason(error)))?;
    Ok(Initramfs { address, size })
}

/// The highest page that leaves room for `size` bytes before `end`, and lies behind the kernel.
fn place(size: u64, end: u64, kernel_end: u64) -> Option<u64> {
    let address = end.checked_sub(size)? & !(layout::PAGE - 1);
    (address >= kernel_end).then_some(address)
}

fn reason(error: GuestMemoryError) -> io::Error {
    match error {
        GuestMemoryError::IOError(source) => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_on_the_last_pages_before_the_end() {
        assert_eq!(place(1, 0x10_0000, 0x1000), Some(0xf_f000));
        assert_eq!(place(0x1000, 0x10_0000, 0x1000), Some(0xf_f000));
        assert_eq!(place(0x1001, 0x10_0fff, 0x1000), Some(0xf_f000));
        assert_eq!(place(0x1001, 0x10_0000, 0xf_e000), Some(0xf_e000));
        assert_eq!(place(0x1001, 0x10_0000, 0xf_e001), None);
        assert_eq!(place(0x10_0001, 0x10_0000, 0), None);
    }
}

//! Guest buffers for file systems that copy through the `FileSystem` trait.

use std::io::{self, Read, Write};

use fuse_backend_rs::api::filesystem::{ZeroCopyReader, ZeroCopyWriter};
use fuse_backend_rs::file_buf::FileVolatileSlice;
use fuse_backend_rs::file_traits::FileReadWriteVolatile;
use smallvec::SmallVec;
use vhost_daemon::queue::Buffers;

type Slices<'a> = SmallVec<[FileVolatileSlice<'a>; 8]>;

/// At most `count` bytes from the front of `buffers`.
fn slices(buffers: &Buffers, count: usize) -> Slices<'_> {
    let mut left = count;
    let mut slices = Slices::new();
    for iovec in buffers.iovecs() {
        let len = iovec.iov_len.min(left);
        if len == 0 {
            break;
        }
        // SAFETY: the range lies in mapped guest memory, which `buffers` keeps mapped for as long
        // as it is borrowed; this process only accesses it by volatile copies or system calls.
        slices.push(unsafe { FileVolatileSlice::from_raw_ptr(iovec.iov_base.cast(), len) });
        left -= len;
    }
    slices
}

/// A guest's data on their way into a file.
pub(crate) struct BuffersReader<'a>(pub(crate) &'a mut Buffers);

impl Read for BuffersReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl ZeroCopyReader for BuffersReader<'_> {
    fn read_to(
        &mut self,
        file: &mut dyn FileReadWriteVolatile,
        count: usize,
        offset: u64,
    ) -> io::Result<usize> {
        let done = file.write_vectored_at_volatile(&slices(self.0, count), offset)?;
        self.0.advance(done);
        Ok(done)
    }
}

/// Where a guest wants a file's data.
pub(crate) struct BuffersWriter<'a>(pub(crate) &'a mut Buffers);

impl Write for BuffersWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ZeroCopyWriter for BuffersWriter<'_> {
    fn write_from(
        &mut self,
        file: &mut dyn FileReadWriteVolatile,
        count: usize,
        offset: u64,
    ) -> io::Result<usize> {
        let done = file.read_vectored_at_volatile(&slices(self.0, count), offset)?;
        self.0.advance(done);
        Ok(done)
    }

    fn available_bytes(&self) -> usize {
        self.0.len()
    }
}

//! Structures that are nothing but their bytes.

use std::mem::{MaybeUninit, size_of};
use std::{ptr, slice};

use crate::fuse::abi;

/// A `repr(C)` structure of integers without padding, for which every bit pattern is valid.
///
/// # Safety
/// Implementors are `repr(C)`, have no padding bytes, and only hold integers (or arrays of them).
pub unsafe trait Pod: Copy + 'static {}

/// Copies a `T` out of the front of `bytes` and returns it with the rest; `None` if there are too
/// few. No alignment is needed.
pub(crate) fn read_front<T: Pod>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (front, rest) = bytes.split_at_checked(size_of::<T>())?;
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `front` has exactly the size of `T`, and the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(front.as_ptr(), value.as_mut_ptr().cast(), front.len()) };
    // SAFETY: all bytes were written just now, and any bytes make a valid `Pod`.
    Some((unsafe { value.assume_init() }, rest))
}

/// The bytes that `value` consists of.
pub(crate) fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: a `Pod` has no padding, so all its bytes are initialised; the borrow is kept.
    unsafe { slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

macro_rules! pod {
    ($($name:ident = $size:literal),* $(,)?) => {$(
        const _: () = assert!(size_of::<abi::$name>() == $size);
        // SAFETY: `repr(C)`, integers only; the size asserted above, that of the kernel's
        // structure, leaves no room for padding.
        unsafe impl Pod for abi::$name {}
    )*};
}

pod! {
    AccessIn = 8,
    AttrOut = 104,
    BatchForgetIn = 8,
    CopyFileRangeIn = 56,
    CreateIn = 16,
    Dirent = 24,
    EntryOut = 128,
    ExtensionHeader = 8,
    FallocateIn = 32,
    FlushIn = 24,
    ForgetIn = 8,
    ForgetOne = 16,
    FsyncIn = 16,
    GetattrIn = 16,
    GetxattrIn = 8,
    GetxattrOut = 8,
    InHeader = 40,
    InitIn = 16,
    InitIn2 = 48,
    InitOut = 64,
    InterruptIn = 8,
    LinkIn = 8,
    LkIn = 48,
    LkOut = 24,
    LseekIn = 24,
    LseekOut = 8,
    MkdirIn = 8,
    MknodIn = 16,
    OpenIn = 8,
    OpenOut = 16,
    OutHeader = 16,
    ReadIn = 40,
    ReleaseIn = 24,
    Rename2In = 16,
    RenameIn = 8,
    SecurityContext = 8,
    SetattrIn = 88,
    SetxattrIn = 8,
    SetxattrInExt = 16,
    Statx = 256,
    StatfsOut = 80,
    StatxIn = 24,
    StatxOut = 288,
    WriteIn = 40,
    WriteOut = 8,
}

// SAFETY: an integer without padding.
unsafe impl Pod for u32 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_unaligned_and_gives_the_rest() {
        let bytes = [9, 1, 0, 0, 0, 7];
        let (value, rest) = read_front::<u32>(&bytes[1..]).unwrap();
        assert_eq!((value, rest), (1, &[7][..]));
        assert!(read_front::<u32>(&bytes[3..]).is_none());
        assert_eq!(bytes_of(&value), [1, 0, 0, 0]);
    }
}

//! What a front end shares in huge pages, before the vhost crate maps it.
//!
//! A mapping of hugetlbfs can be unmapped or replaced only in whole pages of its own, and the vhost crate unmaps what it
//! mapped by the length that the front end told: part of a huge page would stay mapped for good. A dirty log there
//! could not be replaced when its file is cut short, which would end the process.

use std::io;
use std::os::fd::OwnedFd;

use super::lenient::{HEADER, word};
use crate::memory::huge_page;

/// `VHOST_USER_SET_MEM_TABLE`: le32 number of regions, le32 padding, the regions.
const SET_MEM_TABLE: u32 = 5;
/// `VHOST_USER_SET_LOG_BASE`
const SET_LOG_BASE: u32 = 6;
/// `VHOST_USER_ADD_MEM_REG`: le64 padding, a region.
const ADD_MEM_REG: u32 = 37;

/// le64 guest address, size, user address, offset in the file (vhost-user, "Memory region description").
const REGION: usize = 32;
const SIZE: usize = 8;

/// Refuses a message whose descriptors, one for each region, cannot be unmapped again.
///
/// # Errors
/// When it is to be refused; fstatfs(2)'s.
pub(super) fn check(message: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    match word(message, 0) {
        Some(SET_MEM_TABLE | ADD_MEM_REG) => {
            for (number, file) in fds.iter().enumerate() {
                let size = double_word(message, HEADER + 8 + number * REGION + SIZE);
                if let (Some(page), Some(size)) = (huge_page(file)?, size)
                    && !size.is_multiple_of(page)
                {
                    return Err(refused("a memory region ends inside a huge page"));
                }
            }
            Ok(())
        }
        Some(SET_LOG_BASE) => match fds.first().map(huge_page).transpose()? {
            Some(Some(_)) => Err(refused("a dirty log in huge pages is not supported")),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn double_word(message: &[u8], at: usize) -> Option<u64> {
    let bytes = message.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    const HUGE: u64 = 2 << 20;

    /// A message whose payload is a word and then regions of these sizes.
    fn message(request: u32, sizes: &[u64]) -> Vec<u8> {
        let mut message = [request, 1, 0].map(u32::to_ne_bytes).concat();
        message.extend(u64::to_ne_bytes(sizes.len() as u64));
        for size in sizes {
            message.extend([0, *size, 0, 0].map(u64::to_ne_bytes).concat());
        }
        message
    }

    /// An empty file: no huge page has to be free.
    fn file(flags: MemfdFlags) -> OwnedFd {
        memfd_create("shared", flags | MemfdFlags::CLOEXEC).unwrap()
    }

    fn huge() -> OwnedFd {
        file(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
    }

    #[test]
    fn a_region_ends_where_a_huge_page_does() {
        let files = [file(MemfdFlags::empty()), huge()];
        for (sizes, is_taken) in [
            ([4096, HUGE], true),
            ([4096, 3 * HUGE], true),
            ([4096, 4096], false),
            ([4096, HUGE + 4096], false),
            ([HUGE, HUGE - 1], false),
        ] {
            let taken = check(&message(SET_MEM_TABLE, &sizes), &files);
            assert_eq!(taken.is_ok(), is_taken, "{sizes:?}");
            let taken = check(&message(ADD_MEM_REG, &sizes[1..]), &files[1..]);
            assert_eq!(taken.is_ok(), is_taken, "{sizes:?}");
        }
    }

    #[test]
    fn a_dirty_log_has_usual_pages() {
        let log = message(SET_LOG_BASE, &[]);
        assert!(check(&log, &[huge()]).is_err());
        assert!(check(&log, &[file(MemfdFlags::empty())]).is_ok());
        assert!(check(&log, &[]).is_ok());
    }

    #[test]
    fn messages_of_any_length_are_looked_at() {
        let whole = message(SET_MEM_TABLE, &[HUGE]);
        for len in 0..whole.len() {
            let _ = check(&whole[..len], &[huge(), huge()]);
        }
        assert!(check(&message(4, &[4096]), &[huge()]).is_ok());
    }
}

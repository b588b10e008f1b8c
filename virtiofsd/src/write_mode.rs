//! How a guest's write is done on the host.

/// How a write is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteMode {
    /// `RWF_*` of pwritev2(2).
    pub flags: i32,
    /// The guest's kernel writes pages back (`FUSE_WRITE_CACHE`). It counts all of them as written
    /// whatever the answer's count says, so it is all or an error.
    pub delayed: bool,
}

impl WriteMode {
    /// Of a write to a file with `flags` of the moment, `O_*`. It goes to the end of the file, wherever
    /// that is by now, and not to its offset, if these have `O_APPEND`: except a page that is written
    /// back, which has its place, and with the write-back cache, where the guest's kernel itself knows
    /// where the end is. With `O_SYNC` or `O_DSYNC` it is not answered before it is on stable storage:
    /// direct writes are followed by no `FSYNC`.
    pub(crate) fn new(flags: u32, delayed: bool, writeback: bool) -> Self {
        let has = |flag: libc::c_int| flags & flag.cast_unsigned() == flag.cast_unsigned();
        let mut how = 0;
        if has(libc::O_APPEND) && !delayed && !writeback {
            how |= libc::RWF_APPEND;
        }
        // O_SYNC has the bit of O_DSYNC in it.
        if has(libc::O_SYNC) {
            how |= libc::RWF_SYNC;
        } else if has(libc::O_DSYNC) {
            how |= libc::RWF_DSYNC;
        }
        Self {
            flags: how,
            delayed,
        }
    }

    /// Whether it goes to the end of the file.
    pub fn appends(self) -> bool {
        self.flags & libc::RWF_APPEND != 0
    }

    /// What is to be on stable storage before the answer.
    pub(crate) fn sync(self) -> Option<SyncScope> {
        match self.flags & (libc::RWF_SYNC | libc::RWF_DSYNC) {
            0 => None,
            flags if flags & libc::RWF_SYNC != 0 => Some(SyncScope::All),
            _ => Some(SyncScope::Data),
        }
    }
}

/// What is brought to stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncScope {
    /// The file's data and all that is kept about it.
    All,
    /// The data, and what reading them needs.
    Data,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_done_on_the_host_as_the_guest_asks() {
        let mode = |flags: i32, delayed, writeback| {
            WriteMode::new(flags.cast_unsigned(), delayed, writeback).flags
        };
        let plain = libc::O_RDWR;
        assert_eq!(mode(plain, false, false), 0);
        assert_eq!(mode(plain | libc::O_SYNC, false, false), libc::RWF_SYNC);
        assert_eq!(mode(plain | libc::O_DSYNC, false, true), libc::RWF_DSYNC);
        let both = libc::O_APPEND | libc::O_DSYNC;
        let how = libc::RWF_APPEND | libc::RWF_DSYNC;
        assert_eq!(mode(both, false, false), how);
        for (delayed, writeback) in [(true, false), (false, true)] {
            assert_eq!(mode(both, delayed, writeback), libc::RWF_DSYNC);
        }
    }
}

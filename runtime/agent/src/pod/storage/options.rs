//! Mount options as mount(8) takes them: some are flags of the mount, the rest is the file system's.

use std::ffi::CString;

use rustix::mount::MountFlags;

/// Options that are flags, and whether they set or clear it.
const FLAGS: [(&str, MountFlags, bool); 19] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, false),
];

/// Said by those who bind, and by mount(8) when it needs no words: nothing for the kernel.
const IGNORED: [&str; 5] = ["bind", "rbind", "defaults", "rprivate", "private"];

/// A mount's flags and its file system's own options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pod) struct Options {
    pub(in crate::pod) flags: MountFlags,
    data: String,
}

impl Options {
    pub(in crate::pod) fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, String> {
        let mut parsed = Self {
            flags: MountFlags::empty(),
            data: String::new(),
        };
        for option in options.iter().map(AsRef::as_ref) {
            if option.contains('\0') || option.is_empty() {
                return Err(format!("{option:?} is no mount option"));
            }
            match FLAGS.iter().find(|(name, ..)| *name == option) {
                Some((_, flag, set)) => parsed.flags.set(*flag, *set),
                None if IGNORED.contains(&option) => {}
                None => parsed.add(option),
            }
        }
        Ok(parsed)
    }

    /// Adds one for the file system.
    pub(in crate::pod) fn add(&mut self, option: &str) {
        if !self.data.is_empty() {
            self.data.push(',');
        }
        self.data += option;
    }

    /// The file system's own, as mount(2) takes them.
    pub(in crate::pod) fn data(&self) -> Option<CString> {
        if self.data.is_empty() {
            return None;
        }
        CString::new(self.data.as_str()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        let options =
            Options::parse(&["ro", "nosuid", "size=64m", "bind", "mode=755", "rw"]).unwrap();
        assert_eq!(options.flags, MountFlags::NOSUID);
        assert_eq!(options.data().as_deref(), Some(c"size=64m,mode=755"));
        assert_eq!(Options::parse(&["defaults"]).unwrap().data(), None);
    }

    #[test]
    fn what_cannot_be_an_option_is_refused() {
        for bad in ["", "a\0b"] {
            assert!(Options::parse(&[bad]).is_err());
        }
    }
}

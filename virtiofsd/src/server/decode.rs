//! Taking a request's body apart.

use std::ffi::CStr;
use std::io;

use thiserror::Error;

use crate::fuse::{NAME_MAX, PATH_MAX};
use crate::sys::{Pod, read_front};

/// What is wrong with a request's body.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// It ends before its arguments do.
    #[error("request ends before its arguments do")]
    Truncated,
    /// A string has no NUL.
    #[error("string without an end")]
    Unterminated,
    /// A string is longer than the protocol allows.
    #[error("string longer than allowed")]
    TooLong,
    /// A name is empty, has a slash, or stands for a directory itself.
    #[error("name that names no directory entry")]
    BadName,
    /// A count or a flag that makes no sense.
    #[error("argument out of range")]
    OutOfRange,
}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::from_raw_os_error(match malformed {
            Malformed::TooLong => libc::ENAMETOOLONG,
            _ => libc::EINVAL,
        })
    }
}

/// The arguments of a request, taken from the front.
#[derive(Clone, Debug)]
pub struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// All of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been taken.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Takes a structure.
    ///
    /// # Errors
    /// When too few bytes are left.
    pub fn take<T: Pod>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = read_front(self.0).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take_bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(front)
    }

    /// Takes a string of at most `max` bytes, and its NUL.
    ///
    /// # Errors
    /// When it has no NUL or is longer.
    pub fn take_string(&mut self, max: usize) -> Result<&'a CStr, Malformed> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Malformed::Unterminated)?;
        if string.count_bytes() > max {
            return Err(Malformed::TooLong);
        }
        self.0 = &self.0[string.count_bytes() + 1..];
        Ok(string)
    }

    /// Takes the name of an entry in a directory: one component, not the directory itself nor its
    /// parent. So no lookup can leave the directory it starts from.
    ///
    /// # Errors
    /// When it is no such name.
    pub fn take_name(&mut self) -> Result<&'a CStr, Malformed> {
        let name = self.take_string(NAME_MAX)?;
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Malformed::BadName),
            bytes if bytes.contains(&b'/') => Err(Malformed::BadName),
            _ => Ok(name),
        }
    }

    /// Takes a path: what a symbolic link holds.
    ///
    /// # Errors
    /// When it has no NUL or is too long.
    pub fn take_path(&mut self) -> Result<&'a CStr, Malformed> {
        self.take_string(PATH_MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_one_component() {
        for bad in ["", ".", "..", "a/b", "/", "../x"] {
            let bytes = format!("{bad}\0");
            assert_eq!(
                Body::new(bytes.as_bytes()).take_name(),
                Err(Malformed::BadName),
                "{bad}"
            );
        }
        for good in ["a", "...", "..a", ".a", "\u{e4}"] {
            let bytes = format!("{good}\0next\0");
            let mut body = Body::new(bytes.as_bytes());
            assert_eq!(body.take_name().unwrap().to_bytes(), good.as_bytes());
            assert_eq!(body.take_name().unwrap(), c"next");
        }
    }

    #[test]
    fn strings_are_bounded_and_terminated() {
        assert_eq!(Body::new(b"abc").take_name(), Err(Malformed::Unterminated));
        assert_eq!(Body::new(b"").take_name(), Err(Malformed::Unterminated));
        let long = [vec![b'a'; NAME_MAX + 1], vec![0]].concat();
        assert_eq!(Body::new(&long).take_name(), Err(Malformed::TooLong));
        assert!(Body::new(&long[1..]).take_name().is_ok());
    }

    proptest! {
        #[test]
        fn taking_never_reads_beyond_the_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            steps in proptest::collection::vec(0..5u8, 0..20),
        ) {
            let mut body = Body::new(&bytes);
            for step in steps {
                let before = body.rest().len();
                let taken = match step {
                    0 => body.take::<u32>().is_ok(),
                    1 => body.take::<crate::fuse::abi::SetattrIn>().is_ok(),
                    2 => body.take_name().is_ok(),
                    3 => body.take_path().is_ok(),
                    _ => body.take_bytes(9).is_ok(),
                };
                let after = body.rest().len();
                prop_assert!(after <= before);
                prop_assert!(!taken || after < before);
            }
        }
    }
}

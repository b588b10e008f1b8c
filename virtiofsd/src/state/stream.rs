//! A device's state on its way to another daemon (`VHOST_USER_SET_DEVICE_STATE_FD`).
//!
//! Little-endian. A header of seven words of 64 bits: magic number and version, whether a guest has
//! mounted, FUSE features agreed on, first free number of nodes and of handles, how many nodes and how many handles
//! follow. A node: number, lookups, inode's parent (0: found by handle alone), then 32 bits each of kind
//! (`S_IFMT`), handle's type, handle's length and name's length, then handle and name. A handle: number,
//! node, 32 bits of flags (`O_*`) and of whether it is a directory.

use std::ffi::CString;

use thiserror::Error;

use super::{SavedNode, SavedOpen};
use crate::fuse::Features;
use crate::sys::FileHandle;

/// "RSfsmig" and the version.
const MAGIC: u64 = 0x5253_6673_6d69_6701;
/// `MAX_HANDLE_SZ` of open_by_handle_at(2).
const MAX_HANDLE: usize = 128;
/// `NAME_MAX`.
const MAX_NAME: usize = 255;
/// Numbers are counted up: no daemon gets so far, and behind the last one would come the root's again.
const MOST_NUMBERS: u64 = 1 << 63;

/// What moves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// `None`: no guest has mounted.
    pub(crate) features: Option<Features>,
    /// Numbers from here on were never given to a node, or to a handle.
    pub(crate) next: (u64, u64),
    pub(crate) nodes: Vec<SavedNode>,
    pub(crate) open: Vec<SavedOpen>,
}

/// Bytes that are no state of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum StreamError {
    #[error("the state is not of this daemon, or of another version of it")]
    Foreign,
    #[error("the state ends early")]
    Short,
    #[error("the state names a file in a way that cannot be")]
    BadName,
    #[error("the state has a number that was never given to a node or an open file")]
    BadNumber,
}

impl Moved {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let header = [
            MAGIC,
            self.features.is_some().into(),
            self.features.map_or(0, Features::bits),
            self.next.0,
            self.next.1,
            self.nodes.len() as u64,
            self.open.len() as u64,
        ];
        let mut bytes = header.map(u64::to_le_bytes).concat();
        for node in &self.nodes {
            put_node(&mut bytes, node);
        }
        for open in &self.open {
            put_words(&mut bytes, &[open.number, open.inode]);
            put_halves(&mut bytes, &[open.flags, open.directory.into()]);
        }
        bytes
    }

    /// # Errors
    /// When that is no state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StreamError> {
        let mut rest = Rest(bytes);
        if rest.word() != Ok(MAGIC) {
            return Err(StreamError::Foreign);
        }
        let mounted = rest.word()? != 0;
        let features = Features::from_bits(rest.word()?);
        let features = mounted.then_some(features);
        let next = (rest.word()?, rest.word()?);
        let (nodes, open) = (rest.word()?, rest.word()?);
        // Collected one by one: counts that lie end at the end of the bytes.
        let nodes = (0..nodes).map(|_| rest.node()).collect::<Result<_, _>>()?;
        let open = (0..open).map(|_| rest.open()).collect::<Result<_, _>>()?;
        let moved = Self {
            features,
            next,
            nodes,
            open,
        };
        moved.check_numbers().map(|()| moved)
    }

    /// What was given lies below what is given next.
    fn check_numbers(&self) -> Result<(), StreamError> {
        let (node, open) = self.next;
        let counted = node.max(open) < MOST_NUMBERS
            && self.nodes.iter().all(|it| it.id < node)
            && self.open.iter().all(|it| it.number < open);
        counted.then_some(()).ok_or(StreamError::BadNumber)
    }
}

fn put_node(bytes: &mut Vec<u8>, node: &SavedNode) {
    let (kind, handle) = node.handle.as_ref().map_or((0, &[][..]), FileHandle::parts);
    let (parent, name) = match &node.at {
        Some((parent, name)) => (*parent, name.as_bytes()),
        None => (0, &[][..]),
    };
    put_words(bytes, &[node.id, node.lookups, parent]);
    // Both are bounded by what the kernel gives.
    let lengths = [handle.len(), name.len()].map(|len| u32::try_from(len).unwrap_or(0));
    put_halves(
        bytes,
        &[node.kind, kind.cast_unsigned(), lengths[0], lengths[1]],
    );
    bytes.extend_from_slice(handle);
    bytes.extend_from_slice(name);
}

fn put_words(bytes: &mut Vec<u8>, words: &[u64]) {
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn put_halves(bytes: &mut Vec<u8>, halves: &[u32]) {
    bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StreamError> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(StreamError::Short)?;
        self.0 = rest;
        Ok(front)
    }

    fn word(&mut self) -> Result<u64, StreamError> {
        let bytes = self.take(8)?.try_into();
        bytes
            .map(u64::from_le_bytes)
            .map_err(|_| StreamError::Short)
    }

    fn half(&mut self) -> Result<u32, StreamError> {
        let bytes = self.take(4)?.try_into();
        bytes
            .map(u32::from_le_bytes)
            .map_err(|_| StreamError::Short)
    }

    fn node(&mut self) -> Result<SavedNode, StreamError> {
        let (id, lookups, parent) = (self.word()?, self.word()?, self.word()?);
        let (kind, handle_kind) = (self.half()?, self.half()?);
        let (handle, name) = (self.half()? as usize, self.half()? as usize);
        if handle > MAX_HANDLE || name > MAX_NAME {
            return Err(StreamError::BadName);
        }
        let handle = self.take(handle)?;
        let handle =
            (!handle.is_empty()).then(|| FileHandle::from_parts(handle_kind.cast_signed(), handle));
        let name = CString::new(self.take(name)?).map_err(|_| StreamError::BadName)?;
        Ok(SavedNode {
            by_handle: parent == 0 && handle.is_some(),
            handle,
            at: (parent != 0).then_some((parent, name)),
            ..SavedNode::elsewhere(id, lookups, kind & libc::S_IFMT)
        })
    }

    fn open(&mut self) -> Result<SavedOpen, StreamError> {
        Ok(SavedOpen {
            number: self.word()?,
            inode: self.word()?,
            flags: self.half()?,
            directory: self.half()? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moved() -> Moved {
        let node = |id, handle: Option<&[u8]>, at: Option<(u64, CString)>| SavedNode {
            id,
            lookups: 3,
            device: 0,
            inode: 0,
            kind: libc::S_IFREG,
            born: None,
            by_handle: at.is_none() && handle.is_some(),
            handle: handle.map(|bytes| FileHandle::from_parts(-3, bytes)),
            at,
        };
        Moved {
            features: Some(Features::WRITEBACK_CACHE),
            next: (100, 200),
            nodes: vec![
                node(2, Some(&[7; 128]), None),
                node(3, Some(&[1]), Some((1, c"name".to_owned()))),
                node(4, None, Some((3, CString::new("n".repeat(255)).unwrap()))),
            ],
            open: vec![SavedOpen {
                number: 9,
                inode: 2,
                flags: 0o100_002,
                directory: true,
            }],
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let bytes = moved().to_bytes();
        assert_eq!(Moved::from_bytes(&bytes), Ok(moved()));
        for len in 0..bytes.len() {
            assert!(Moved::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn counts_that_lie_allocate_nothing() {
        let mut bytes = moved().to_bytes();
        bytes[40..56].fill(0xff);
        assert!(Moved::from_bytes(&bytes).is_err());
    }

    #[test]
    fn numbers_that_nobody_was_given_are_refused() {
        let with = |change: fn(&mut Moved)| {
            let mut moved = moved();
            change(&mut moved);
            Moved::from_bytes(&moved.to_bytes())
        };
        let refused = Err(StreamError::BadNumber);
        assert_eq!(with(|it| it.next.0 = u64::MAX), refused);
        assert_eq!(with(|it| it.next.1 = u64::MAX), refused);
        assert_eq!(with(|it| it.nodes[1].id = 100), refused);
        assert_eq!(with(|it| it.open[0].number = 200), refused);
        assert!(with(|it| it.nodes[1].id = 99).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_state_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            small in any::<bool>(),
        ) {
            let _ = Moved::from_bytes(&bytes);
            if bytes.len() >= 56 {
                bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
                if small {
                    bytes[41..48].fill(0);
                    bytes[49..56].fill(0);
                }
                let _ = Moved::from_bytes(&bytes);
            }
        }
    }
}

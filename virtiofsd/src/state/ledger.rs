//! The nodes a guest knows and the files it has open, as the next process finds them.
//!
//! | unit | words |
//! | --- | --- |
//! | node | tag · number · lookups · device · inode · birth, seconds · birth, nanoseconds, kind and flags · name's unit · handle's type and length, or 0 · handle's unit |
//! | open file | tag · number · node · flags and kind |
//! | text | tag · next unit and length · 14 words of bytes: a parent's number and a name, or a handle |
//!
//! A unit is filled before its tag is stored, and a name is changed by storing one word: at whatever
//! moment the process dies, each unit is whole or free. Text that no node names is free, too.

mod text;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::units::{FREE, Unit, Units};
use crate::sys::FileHandle;
use text::{NO_TEXT, name_text};

const NODE: u64 = 1;
const OPEN: u64 = 2;
const TEXT: u64 = 3;

/// Words of a node.
const NUMBER: usize = 1;
const LOOKUPS: usize = 2;
const DEVICE: usize = 3;
const INODE: usize = 4;
const BORN: usize = 5;
const KIND: usize = 6;
const NAME: usize = 7;
const HANDLE: usize = 8;
const HANDLE_TEXT: usize = 9;

/// In the word [`KIND`]: the time of birth is known.
const HAS_BIRTH: u64 = 1 << 63;
/// In the word [`KIND`]: the file is to be found by its handle.
const BY_HANDLE: u64 = 1 << 62;
/// `S_IFMT` of 16 bits, above 30 bits of nanoseconds.
const KIND_SHIFT: u32 = 32;
const LOW: u64 = 0xffff_ffff;

/// Words of an open file.
const OF_NODE: usize = 2;
const FLAGS: usize = 3;
/// In the word [`FLAGS`]: a directory.
const DIRECTORY: u64 = 1 << 32;

/// A node as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedNode {
    /// The guest's number for it.
    pub(crate) id: u64,
    /// What the guest has not forgotten.
    pub(crate) lookups: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// `S_IFMT` part of the mode.
    pub(crate) kind: u32,
    /// When the file was made: seconds and nanoseconds.
    pub(crate) born: Option<(i64, u32)>,
    pub(crate) handle: Option<FileHandle>,
    /// It is to be found by that.
    pub(crate) by_handle: bool,
    /// Its directory's number, and its name in it.
    pub(crate) at: Option<(u64, CString)>,
}

impl SavedNode {
    /// A node that moves to another host: what tells its file from others there is not known here.
    pub(crate) fn elsewhere(id: u64, lookups: u64, kind: u32) -> Self {
        Self {
            id,
            lookups,
            device: 0,
            inode: 0,
            kind,
            born: None,
            handle: None,
            by_handle: false,
            at: None,
        }
    }
}

/// An open file as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedOpen {
    /// The guest's number for it.
    pub(crate) number: u64,
    /// The node's.
    pub(crate) inode: u64,
    /// It was opened with these (`O_*`).
    pub(crate) flags: u32,
    pub(crate) directory: bool,
}

/// What was remembered.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) nodes: Vec<(SavedNode, NodeRecord)>,
    pub(crate) open: Vec<(SavedOpen, OpenRecord)>,
}

/// Remembers nodes and open files.
#[derive(Debug)]
pub(crate) struct Ledger(Units);

/// A unit of a ledger's; freed when dropped.
#[derive(Debug)]
struct Kept {
    ledger: Arc<Ledger>,
    unit: Unit,
}

/// A node's place in the ledger. Nothing is remembered where there was no room.
#[derive(Debug, Default)]
pub(crate) struct NodeRecord(Option<Kept>);

/// An open file's place in the ledger; freed when dropped.
#[derive(Debug, Default)]
pub(crate) struct OpenRecord {
    _kept: Option<Kept>,
}

impl Ledger {
    /// The ledger in `file`.
    ///
    /// # Errors
    /// mmap(2)'s.
    pub(crate) fn open(file: File) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(Units::open(file)?)))
    }

    /// Whether what an earlier process has left is not all in it.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.is_cut()
    }

    /// What is in it. To be called once, before anything is added.
    pub(crate) fn load(self: &Arc<Self>) -> Saved {
        let mut saved = Saved::default();
        let count = self.0.len();
        let mut named = vec![false; count as usize];
        let kept = |unit| Kept {
            ledger: self.clone(),
            unit,
        };
        for unit in 0..count {
            match self.0.load(unit, 0) {
                NODE => {
                    let node = self.node(unit, &mut named);
                    saved.nodes.push((node, NodeRecord(Some(kept(unit)))));
                }
                OPEN => {
                    let _kept = Some(kept(unit));
                    saved.open.push((self.opened(unit), OpenRecord { _kept }));
                }
                _ => {}
            }
        }
        for (unit, named) in (0..count).zip(named) {
            if !named && !matches!(self.0.load(unit, 0), NODE | OPEN) {
                self.0.free(unit);
            }
        }
        saved
    }

    /// Remembers a node.
    pub(crate) fn add_node(self: &Arc<Self>, node: &SavedNode) -> NodeRecord {
        NodeRecord(self.try_add_node(node))
    }

    fn try_add_node(self: &Arc<Self>, node: &SavedNode) -> Option<Kept> {
        let name = match &node.at {
            Some((parent, name)) => self.add_text(&name_text(*parent, name))?,
            None => NO_TEXT,
        };
        let handle = node.handle.as_ref().map(FileHandle::parts);
        let handle_text = match handle {
            Some((_, bytes)) => self.add_text(bytes)?,
            None => NO_TEXT,
        };
        let unit = self.0.allocate()?;
        let (seconds, nanoseconds) = node.born.unwrap_or_default();
        let mut kind = u64::from(node.kind) << KIND_SHIFT | u64::from(nanoseconds);
        kind |= if node.born.is_some() { HAS_BIRTH } else { 0 };
        kind |= if node.by_handle { BY_HANDLE } else { 0 };
        let words = [
            (NUMBER, node.id),
            (LOOKUPS, node.lookups),
            (DEVICE, node.device),
            (INODE, node.inode),
            (BORN, seconds.cast_unsigned()),
            (KIND, kind),
            (NAME, name),
            (
                HANDLE,
                handle.map_or(0, |(kind, bytes)| handle_word(kind, bytes)),
            ),
            (HANDLE_TEXT, handle_text),
        ];
        for (at, word) in words {
            self.0.store(unit, at, word);
        }
        self.0.word(unit, 0).store(NODE, Ordering::Release);
        Some(Kept {
            ledger: self.clone(),
            unit,
        })
    }

    /// Remembers an open file.
    pub(crate) fn add_open(self: &Arc<Self>, open: &SavedOpen) -> OpenRecord {
        let Some(unit) = self.0.allocate() else {
            return OpenRecord::default();
        };
        let directory = if open.directory { DIRECTORY } else { 0 };
        self.0.store(unit, NUMBER, open.number);
        self.0.store(unit, OF_NODE, open.inode);
        self.0.store(unit, FLAGS, u64::from(open.flags) | directory);
        self.0.word(unit, 0).store(OPEN, Ordering::Release);
        let ledger = self.clone();
        OpenRecord {
            _kept: Some(Kept { ledger, unit }),
        }
    }

    fn node(&self, unit: Unit, named: &mut [bool]) -> SavedNode {
        let load = |at| self.0.load(unit, at);
        let kind = load(KIND);
        let name = self.sound_text(unit, NAME, named);
        let at = name.and_then(|bytes| {
            let (parent, name) = bytes.split_first_chunk()?;
            let name = CString::new(name).ok()?;
            Some((u64::from_le_bytes(*parent), name))
        });
        let handle = self.sound_text(unit, HANDLE_TEXT, named).map(|bytes| {
            let kind = (load(HANDLE) >> 32) as u32;
            FileHandle::from_parts(kind.cast_signed(), &bytes)
        });
        let nanoseconds = (kind & (LOW >> 2)) as u32;
        SavedNode {
            id: load(NUMBER),
            lookups: load(LOOKUPS),
            device: load(DEVICE),
            inode: load(INODE),
            kind: (kind >> KIND_SHIFT & 0xffff) as u32,
            born: (kind & HAS_BIRTH != 0).then(|| (load(BORN).cast_signed(), nanoseconds)),
            by_handle: kind & BY_HANDLE != 0 && handle.is_some(),
            handle,
            at,
        }
    }

    fn opened(&self, unit: Unit) -> SavedOpen {
        let flags = self.0.load(unit, FLAGS);
        SavedOpen {
            number: self.0.load(unit, NUMBER),
            inode: self.0.load(unit, OF_NODE),
            flags: (flags & LOW) as u32,
            directory: flags & DIRECTORY != 0,
        }
    }
}

fn handle_word(kind: i32, bytes: &[u8]) -> u64 {
    u64::from(kind.cast_unsigned()) << 32 | bytes.len() as u64
}

impl NodeRecord {
    /// Whether the next process will know of the node.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// The guest was told of the node once more.
    pub(crate) fn looked_up(&self) {
        if let Some(Kept { ledger, unit }) = &self.0 {
            ledger.0.word(*unit, LOOKUPS).fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The guest has forgotten so many.
    pub(crate) fn forgotten(&self, count: u64) {
        if let Some(Kept { ledger, unit }) = &self.0 {
            let lookups = ledger.0.word(*unit, LOOKUPS);
            let less = |now: u64| Some(now.saturating_sub(count));
            let _ = lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// The node is found elsewhere from now on. One change of a node at a time.
    pub(crate) fn moved(&self, parent: u64, name: &CStr) {
        let Some(Kept { ledger, unit }) = &self.0 else {
            return;
        };
        if let Some(text) = ledger.add_text(&name_text(parent, name)) {
            let before = ledger.0.word(*unit, NAME).swap(text, Ordering::AcqRel);
            ledger.free_text(before);
        }
    }

    /// The node has no name any more.
    pub(crate) fn lost_name(&self) {
        if let Some(Kept { ledger, unit }) = &self.0 {
            let before = ledger.0.word(*unit, NAME).swap(NO_TEXT, Ordering::AcqRel);
            ledger.free_text(before);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let units = &self.ledger.0;
        let texts = match units.load(self.unit, 0) {
            NODE => [NAME, HANDLE_TEXT].map(|at| units.load(self.unit, at)),
            _ => [NO_TEXT; 2],
        };
        units.word(self.unit, 0).store(FREE, Ordering::Release);
        texts
            .into_iter()
            .for_each(|text| self.ledger.free_text(text));
        units.free(self.unit);
    }
}

#[cfg(test)]
mod tests;

//! Listing directories.

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, PoisonError};

use fuse_backend_rs::api::filesystem::{DirEntry, Entry};
use rustix::fs::{FileType, RawDir, SeekFrom};

use super::handles::{Handle, Opened};
use super::inode::Inode;
use super::{Passthrough, errno};
use crate::fuse::ROOT;

/// What getdents64(2) fills at a time, at most: some hundred entries.
const CHUNK: usize = 16 << 10;

/// At least: some entries with the longest names.
const CHUNK_MIN: usize = 1024;

/// With its attributes an entry takes several times the room that it takes on the host.
const PLUS: u32 = 4;

impl Passthrough {
    /// Lists from position `offset` on (0, or what an entry named), until `add` returns 0: the
    /// guest's buffer, of some `size` bytes, is full.
    pub(super) fn list(
        &self,
        (inode, handle): (u64, u64),
        offset: u64,
        size: u32,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        let (node, open) = self.listing(inode, handle)?;
        self.entries(&node, &open, (offset, size), |entry, _| add(entry))
    }

    /// Lists with every entry looked up: one lookup more for each entry that `add` took.
    pub(super) fn list_with_entries(
        &self,
        (inode, handle): (u64, u64),
        offset: u64,
        size: u32,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let (node, open) = self.listing(inode, handle)?;
        self.entries(&node, &open, (offset, size / PLUS), |dirent, name| {
            // Node 0: the guest's kernel takes the name and asks for the rest if it needs it. So
            // it is for the directory itself and its parent, and for what has just gone.
            let entry = match dirent.name {
                b"." | b".." => Entry::default(),
                _ => self.look_up_in(&node, name).unwrap_or_default(),
            };
            let looked_up = entry.inode;
            let added = add(dirent, entry);
            if looked_up != 0 && !matches!(added, Ok(1..)) {
                self.inodes.forget(looked_up, 1);
            }
            added
        })
    }

    fn listing(&self, inode: u64, handle: u64) -> io::Result<(Arc<Inode>, Arc<Handle>)> {
        Ok((self.inodes.get(inode)?, self.handles.any(inode, handle)?))
    }

    fn entries(
        &self,
        node: &Inode,
        open: &Handle,
        (offset, size): (u64, u32),
        mut add: impl FnMut(DirEntry<'_>, &std::ffi::CStr) -> io::Result<usize>,
    ) -> io::Result<()> {
        let Opened::Directory(position) = &open.opened else {
            return Err(errno(libc::ENOTDIR));
        };
        let _position = position.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&open.file, SeekFrom::Start(offset))?;
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        // What does not fit the guest's buffer would be read once more for its next request.
        let chunk = &mut chunk[..(size as usize).clamp(CHUNK_MIN, CHUNK)];
        let mut entries = RawDir::new(&open.file, chunk);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let dirent = DirEntry {
                ino: self.shown_inode(node, name.to_bytes(), entry.ino()),
                offset: entry.next_entry_cookie(),
                type_: type_number(entry.file_type()),
                name: name.to_bytes(),
            };
            if add(dirent, name)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The root has no parent that the guest may know of.
    fn shown_inode(&self, node: &Inode, name: &[u8], ino: u64) -> u64 {
        if node.id == ROOT && name == b".." {
            self.inodes.root().host_number()
        } else {
            ino
        }
    }
}

fn type_number(kind: FileType) -> u32 {
    u32::from(match kind {
        FileType::RegularFile => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::Unknown => libc::DT_UNKNOWN,
    })
}

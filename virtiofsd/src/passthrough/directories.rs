//! Listing directories.

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, PoisonError};

use fuse_backend_rs::api::filesystem::{DirEntry, Entry};
use rustix::fs::{FileType, RawDir, SeekFrom};

use super::handles::{Handle, Opened};
use super::inodes::Inode;
use super::{Passthrough, errno};
use crate::fuse::ROOT;

/// What getdents64(2) fills at a time: some hundred entries.
const CHUNK: usize = 16 << 10;

impl Passthrough {
    /// Lists from position `offset` on (0, or what an entry named), until `add` returns 0: the
    /// guest's buffer is full.
    pub(super) fn list(
        &self,
        inode: u64,
        handle: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        let (node, open) = self.listing(inode, handle)?;
        self.entries(&node, &open, offset, |entry, _| add(entry))
    }

    /// Lists with every entry looked up: one lookup more for each entry that `add` took.
    pub(super) fn list_with_entries(
        &self,
        inode: u64,
        handle: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let (node, open) = self.listing(inode, handle)?;
        self.entries(&node, &open, offset, |dirent, name| {
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
        offset: u64,
        mut add: impl FnMut(DirEntry<'_>, &std::ffi::CStr) -> io::Result<usize>,
    ) -> io::Result<()> {
        let Opened::Directory(position) = &open.opened else {
            return Err(errno(libc::ENOTDIR));
        };
        let _position = position.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&open.file, SeekFrom::Start(offset))?;
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut entries = RawDir::new(&open.file, &mut chunk);
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

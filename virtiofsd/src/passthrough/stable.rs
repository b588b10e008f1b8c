//! Bringing data to stable storage.

use std::io;

use rustix::fs::OFlags;

use super::Passthrough;
use super::inode::Inode;
use crate::fuse::Features;

impl Passthrough {
    pub(super) fn sync(&self, inode: u64, handle: u64, data_only: bool) -> io::Result<()> {
        let open = self.handles.any(inode, handle)?;
        if data_only {
            open.file.sync_data()
        } else {
            open.file.sync_all()
        }
    }

    /// All file systems that the guest sees as one: that of the node, and unless mounts are shown to it
    /// as such, those of all others.
    pub(super) fn sync_file_system(&self, inode: u64) -> io::Result<()> {
        let node = self.inodes.get(inode)?;
        let node = if node.kind == libc::S_IFDIR {
            &node
        } else {
            self.inodes.root()
        };
        let synced = self.sync_device_of(node);
        if self.agreed(Features::SUBMOUNTS) {
            return synced;
        }
        // One that fails keeps none of the others.
        let others = self.inodes.one_directory_of_each_device();
        let others = others.iter().filter(|it| it.device() != node.device());
        others
            .map(|other| self.sync_device_of(other))
            .fold(synced, io::Result::and)
    }

    fn sync_device_of(&self, directory: &Inode) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.descriptors.reopen(&directory.fd()?, flags)?;
        Ok(rustix::fs::syncfs(fd)?)
    }
}

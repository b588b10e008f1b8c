//! Moving to another daemon: nodes and open files as it will find them.

use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::inode::Inode;
use super::names::{check_name, open_node};
use super::restore::{Known, Missing, Trust};
use super::{MigrationConfig, MigrationMode, OnMigrationError, Passthrough, errno};
use crate::fuse::{Features, ROOT};
use crate::state::{Moved, SavedNode};
use crate::sys::{FileHandle, status_of};

/// Nodes by their path in the shared directory.
type Paths = HashMap<PathBuf, u64>;

impl Passthrough {
    /// What another daemon needs to go on. No queue runs meanwhile.
    ///
    /// # Errors
    /// When a node cannot be told of, or a file not be brought to stable storage, and that is to end the
    /// migration.
    pub(super) fn save_all(&self, features: Option<Features>) -> io::Result<Vec<u8>> {
        let mut trouble = Trouble::new(self.config.migration.on_error);
        let mut nodes = Vec::new();
        let mut paths = Paths::new();
        let root = self.host_path(self.inodes.root().fd()?)?;
        for node in self.inodes.all() {
            match self.save_node(&node, &root, &mut paths) {
                Ok(saved) => nodes.push(saved),
                Err(error) => trouble.met("a node cannot be moved", node.id, error)?,
            }
        }
        // On a network file system another host sees what was written once it is on the server, and what
        // this one still held would overwrite what the guest writes there.
        for (number, open) in self.handles.for_writing() {
            if let Err(error) = open.file.sync_all() {
                let what = "an open file's data cannot be brought to stable storage";
                trouble.met(what, number, error)?;
            }
        }
        trouble.tell();
        self.add_parents(&mut nodes, &mut paths);
        let moved = Moved {
            features,
            next: (self.inodes.next_number(), self.handles.next_number()),
            nodes,
            open: self.handles.all(),
        };
        Ok(moved.to_bytes())
    }

    fn save_node(
        &self,
        node: &Arc<Inode>,
        root: &Path,
        paths: &mut Paths,
    ) -> io::Result<SavedNode> {
        let MigrationConfig { mode, verify, .. } = self.config.migration;
        let fd = node.fd()?;
        let by_handle = mode == MigrationMode::FileHandles;
        let handle = if by_handle || verify {
            Some(FileHandle::of(&fd)?)
        } else {
            None
        };
        if !by_handle {
            let path = self.path_of(fd.as_fd(), root)?;
            paths.insert(path, node.id);
        }
        Ok(SavedNode {
            handle,
            by_handle,
            ..SavedNode::elsewhere(node.id, node.lookups(), node.kind)
        })
    }

    /// Where /proc says that an open file is.
    fn host_path(&self, fd: impl AsFd) -> io::Result<PathBuf> {
        let (descriptors, name) = self.descriptors.name(&fd);
        let path = rustix::fs::readlinkat(descriptors, name.as_c_str(), Vec::new())?;
        Ok(OsString::from_vec(path.into_bytes()).into())
    }

    /// Where an open file is in the shared directory, `root`; it must still be there.
    fn path_of(&self, fd: impl AsFd, root: &Path) -> io::Result<PathBuf> {
        let path = self.host_path(&fd)?;
        let path = path.strip_prefix(root).map_err(|_| errno(libc::ESTALE))?;
        let (found, this) = (status_of(self.walk(path)?)?, status_of(fd)?);
        let same = |of: fn(&crate::sys::FileStatus) -> u64| of(&found) == of(&this);
        let is_it = same(|status| status.attributes.st_ino)
            && same(|status| status.attributes.st_dev)
            && same(|status| status.mount_id);
        is_it
            .then(|| path.to_owned())
            .ok_or_else(|| errno(libc::ESTALE))
    }

    /// Opens what is at a path, one component after the other.
    fn walk(&self, path: &Path) -> io::Result<std::os::fd::OwnedFd> {
        let root = self.inodes.root().fd()?.as_fd().try_clone_to_owned()?;
        path.components().try_fold(root, |above, component| {
            let name = CString::new(component.as_os_str().as_bytes())?;
            check_name(&name)?;
            Ok(open_node(&above, &name)?)
        })
    }

    /// Turns paths into directories' numbers and names. Directories that the guest does not know get
    /// numbers of their own, without a lookup.
    fn add_parents(&self, nodes: &mut Vec<SavedNode>, paths: &mut Paths) {
        let mut by_id: HashMap<u64, SavedNode> =
            nodes.drain(..).map(|node| (node.id, node)).collect();
        paths.insert(PathBuf::new(), ROOT);
        let known: Vec<PathBuf> = paths.keys().cloned().collect();
        for path in known {
            let mut path = path.as_path();
            while let (Some(above), Some(Component::Normal(name))) =
                (path.parent(), path.components().next_back())
            {
                let was_known = paths.contains_key(above);
                let parent = *paths
                    .entry(above.to_owned())
                    .or_insert_with(|| self.inodes.reserve_number());
                let id = paths.get(path).copied().unwrap_or(ROOT);
                // On the way to a node, and not known to the guest itself.
                let on_the_way = || SavedNode::elsewhere(id, 0, libc::S_IFDIR);
                let node = by_id.entry(id).or_insert_with(on_the_way);
                node.at = CString::new(name.as_bytes())
                    .ok()
                    .map(|name| (parent, name));
                if was_known {
                    break;
                }
                path = above;
            }
        }
        nodes.extend(by_id.into_values());
    }

    /// Takes over what another daemon has saved.
    ///
    /// # Errors
    /// When that is no state, or a node cannot be found and that is to end the migration.
    pub(super) fn load_all(&self, bytes: &[u8]) -> io::Result<Option<Features>> {
        let mut trouble = Trouble::new(self.config.migration.on_error);
        let moved = Moved::from_bytes(bytes).map_err(io::Error::other)?;
        self.inodes.number_from(moved.next.0);
        self.handles.number_from(moved.next.1);
        let trust = Trust::Place;
        let by_handle = self.config.migration.mode == MigrationMode::FileHandles;
        let looked_up = moved.nodes.iter().filter(|node| node.lookups > 0);
        let looked_up: Vec<u64> = looked_up.map(|node| node.id).collect();
        let mut missing: Missing = moved
            .nodes
            .into_iter()
            // A handle names any file of the file system: only who says so takes it from others.
            .filter(|node| node.id != ROOT && (by_handle || !node.by_handle))
            .map(|node| (node.id, (node, None)))
            .collect();
        let mut known = Known::from([(ROOT, self.inodes.root().clone())]);
        for id in &looked_up {
            self.find_again(*id, trust, &mut missing, &mut known);
        }
        for id in looked_up {
            if !known.contains_key(&id) {
                trouble.met("a node is not here", id, errno(libc::ESTALE))?;
            }
        }
        for saved in &moved.open {
            match self.open_again(saved, &known) {
                Ok(new) => self.handles.restore(saved.number, new, None),
                Err(error) => trouble.met("an open file is not here", saved.number, error)?,
            }
        }
        trouble.tell();
        Ok(moved.features)
    }
}

/// What cannot move, and what that means.
struct Trouble {
    on_error: OnMigrationError,
    count: u64,
}

impl Trouble {
    fn new(on_error: OnMigrationError) -> Self {
        Self { on_error, count: 0 }
    }

    fn met(&mut self, what: &str, number: u64, error: io::Error) -> io::Result<()> {
        match self.on_error {
            OnMigrationError::Abort => {
                tracing::error!(number, %error, what);
                Err(error)
            }
            OnMigrationError::GuestError => {
                tracing::debug!(number, %error, what);
                self.count += 1;
                Ok(())
            }
        }
    }

    fn tell(&self) {
        if self.count > 0 {
            let files = self.count;
            tracing::warn!(files, "the guest gets errors for files that could not move");
        }
    }
}

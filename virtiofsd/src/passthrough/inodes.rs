//! The nodes that a guest knows.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::errno;
use super::inode::{FoundAgain, Identity, Inode};
use super::node_limit::NodeLimit;
use super::place::{Place, Places};
use crate::fuse::ROOT;
use crate::state::{Ledger, NodeRecord, SavedNode};
use crate::sys::{FileHandle, FileStatus, status_of};

const SHARDS: usize = 32;

type Shard<K> = RwLock<HashMap<K, Arc<Inode>>>;

/// Nodes by the guest's number and by the host's identity.
///
/// Both maps are cut into shards, and no lock is held over a system call: queues do not wait for
/// each other. A lock of `by_identity` may be held while one of `by_id` is taken, never the other
/// way round.
pub(super) struct InodeTable {
    root: Arc<Inode>,
    by_id: [Shard<u64>; SHARDS],
    by_identity: [Shard<Identity>; SHARDS],
    next: AtomicU64,
    limit: NodeLimit,
    /// Where nodes are remembered.
    ledger: Option<Arc<Ledger>>,
}

impl InodeTable {
    /// A table that knows the root only.
    pub(super) fn new(root: OwnedFd, places: &Places, limit: NodeLimit) -> io::Result<Self> {
        let status = status_of(&root)?;
        let place = Place::new(Some(places.keep(root)?), None);
        let counted = limit.count_always();
        let root = Inode::new((ROOT, 1), place, &status, NodeRecord::default(), counted);
        Ok(Self {
            root: Arc::new(root),
            by_id: std::array::from_fn(|_| RwLock::default()),
            by_identity: std::array::from_fn(|_| RwLock::default()),
            next: AtomicU64::new(ROOT + 1),
            limit,
            ledger: None,
        })
    }

    /// Remembers nodes in `ledger` from now on, numbered from `first`.
    pub(super) fn remember_in(&mut self, ledger: Arc<Ledger>, first: u64) {
        self.ledger = Some(ledger);
        self.next = AtomicU64::new(first);
    }

    /// A node that an earlier process, or another daemon, has left: the guest knows it, unless it is there
    /// for nodes below it only.
    pub(super) fn restore(
        &self,
        (saved, record): (&SavedNode, Option<NodeRecord>),
        found: FoundAgain,
    ) -> Arc<Inode> {
        let record = record.or_else(|| {
            let (status, handle) = (&found.status, found.handle.as_ref());
            let mut here = found.place.saved(saved.id, status, handle);
            here.lookups = saved.lookups;
            Some(self.ledger.as_ref()?.add_node(&here))
        });
        let node = Arc::new(Inode::new(
            (saved.id, saved.lookups),
            found.place,
            &found.status,
            record.unwrap_or_default(),
            self.limit.count_always(),
        ));
        if saved.lookups > 0 {
            write(self.shard_of_id(node.id), |by_id| {
                by_id.insert(node.id, node.clone())
            });
            write(self.shard_of_identity(node.identity()), |nodes| {
                nodes.entry(node.identity()).or_insert_with(|| node.clone());
            });
        }
        node
    }

    /// All nodes but the root.
    pub(super) fn all(&self) -> Vec<Arc<Inode>> {
        let nodes = |shard| read(shard, |nodes| nodes.values().cloned().collect::<Vec<_>>());
        self.by_id.iter().flat_map(nodes).collect()
    }

    /// A directory of each device that the guest has met, the root for its own.
    pub(super) fn one_directory_of_each_device(&self) -> Vec<Arc<Inode>> {
        let mut found = vec![self.root.clone()];
        for shard in &self.by_id {
            read(shard, |nodes| {
                for node in nodes.values().filter(|node| node.kind == libc::S_IFDIR) {
                    if found.iter().all(|known| known.device() != node.device()) {
                        found.push(node.clone());
                    }
                }
            });
        }
        found
    }

    /// The number that the next node gets.
    pub(super) fn next_number(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// A number that no node has.
    pub(super) fn reserve_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives new nodes numbers from `first` on, if it is not beyond that already.
    pub(super) fn number_from(&self, first: u64) {
        self.next.fetch_max(first, Ordering::Relaxed);
    }

    pub(super) fn root(&self) -> &Arc<Inode> {
        &self.root
    }

    /// The node with number `id`.
    ///
    /// # Errors
    /// `ESTALE`: the guest has none of that number.
    pub(super) fn get(&self, id: u64) -> io::Result<Arc<Inode>> {
        if id == ROOT {
            return Ok(self.root.clone());
        }
        read(self.shard_of_id(id), |nodes| nodes.get(&id).cloned())
            .ok_or_else(|| errno(libc::ESTALE))
    }

    /// The node of a file that the guest knows, with one more lookup. `handle` is needed where the
    /// node has no open file: another file may have got its inode number meanwhile.
    pub(super) fn known(
        &self,
        status: &FileStatus,
        handle: Option<&FileHandle>,
    ) -> Option<Arc<Inode>> {
        let identity = Identity::from(status);
        if identity == self.root.identity() {
            return Some(self.root.clone());
        }
        read(self.shard_of_identity(identity), |nodes| {
            same(nodes, status, handle)
        })
    }

    /// The node of a file, if it is found by handle or by name.
    pub(super) fn closed(&self, fd: impl AsFd) -> Option<Arc<Inode>> {
        let status = status_of(&fd).ok()?;
        let handle = FileHandle::of(&fd).ok();
        let identity = Identity::from(&status);
        read(self.shard_of_identity(identity), |nodes| {
            let node = nodes.get(&identity)?;
            node.place().way()?;
            let is_it = node.place().is_of(&status, handle.as_ref());
            is_it.then(|| node.clone())
        })
    }

    /// Whether there is room for a new node.
    ///
    /// # Errors
    /// `ENFILE`: there is none.
    pub(super) fn check_room(&self) -> io::Result<()> {
        self.limit.check()
    }

    /// A new node with one lookup, unless another queue was quicker: then it is that one's.
    ///
    /// # Errors
    /// `ENFILE`: there are too many.
    pub(super) fn add(
        &self,
        place: Place,
        status: &FileStatus,
        handle: Option<&FileHandle>,
    ) -> io::Result<Arc<Inode>> {
        let counted = self.limit.count()?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let record = self.ledger.as_ref().map(|ledger| {
            let saved = place.saved(id, status, handle);
            ledger.add_node(&saved)
        });
        let record = record.unwrap_or_default();
        let node = Arc::new(Inode::new((id, 1), place, status, record, counted));
        let shard = self.shard_of_identity(node.identity());
        // Descriptors close when these two go, after the lock.
        let (node, _replaced) = write(shard, |nodes| {
            if let Some(known) = same(nodes, status, handle) {
                return (known, Some(node.clone()));
            }
            write(self.shard_of_id(node.id), |by_id| {
                by_id.insert(node.id, node.clone())
            });
            let replaced = nodes.insert(node.identity(), node.clone());
            (node.clone(), replaced)
        });
        Ok(node)
    }

    /// Takes `count` lookups of node `id` back; the node, if it is gone with that. The root stays,
    /// and unknown nodes are ignored.
    pub(super) fn forget(&self, id: u64, count: u64) -> Option<Arc<Inode>> {
        let node = self.get(id).ok()?;
        if id == ROOT || !node.release(count) {
            return None;
        }
        write(self.shard_of_id(id), |by_id| by_id.remove(&id));
        write(self.shard_of_identity(node.identity()), |nodes| {
            // A new node of the same file may have taken the place.
            if nodes
                .get(&node.identity())
                .is_some_and(|known| Arc::ptr_eq(known, &node))
            {
                nodes.remove(&node.identity());
            }
        });
        Some(node)
    }

    /// Forgets all nodes but the root.
    ///
    /// Numbers first: a node that another queue adds meanwhile may be missed, but none stays that can
    /// be found by its file and not by its number.
    pub(super) fn clear(&self) {
        for shard in &self.by_id {
            drop(write(shard, std::mem::take));
        }
        for shard in &self.by_identity {
            drop(write(shard, std::mem::take));
        }
    }

    /// How many nodes there are, the root included.
    pub(super) fn len(&self) -> usize {
        1 + self
            .by_id
            .iter()
            .map(|shard| read(shard, HashMap::len))
            .sum::<usize>()
    }

    fn shard_of_id(&self, id: u64) -> &Shard<u64> {
        &self.by_id[spread(id)]
    }

    fn shard_of_identity(&self, identity: Identity) -> &Shard<Identity> {
        &self.by_identity[spread(identity.mixed())]
    }
}

/// The node of that identity, if it is the same file and the guest has not just forgotten it; with
/// one more lookup.
fn same(
    nodes: &HashMap<Identity, Arc<Inode>>,
    status: &FileStatus,
    handle: Option<&FileHandle>,
) -> Option<Arc<Inode>> {
    let node = nodes.get(&Identity::from(status))?;
    (node.place().is_of(status, handle) && node.acquire()).then(|| node.clone())
}

/// Fibonacci hashing: neighbours go to different shards.
fn spread(number: u64) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SHARDS
}

fn read<K, T>(shard: &Shard<K>, look: impl FnOnce(&HashMap<K, Arc<Inode>>) -> T) -> T {
    look(&shard.read().unwrap_or_else(PoisonError::into_inner))
}

fn write<K, T>(shard: &Shard<K>, change: impl FnOnce(&mut HashMap<K, Arc<Inode>>) -> T) -> T {
    change(&mut shard.write().unwrap_or_else(PoisonError::into_inner))
}

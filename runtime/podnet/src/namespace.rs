//! The namespace's file, and work inside.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::fstatfs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netlink::Netlink;
use crate::{Error, Network, Wiring, read, wiring};

/// What statfs(2) tells of the files of namespaces (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// A pod's network namespace. Holding it keeps the namespace there.
#[derive(Debug)]
pub struct PodNamespace {
    path: PathBuf,
    file: File,
}

impl PodNamespace {
    /// Opens it, by the path that CNI or containerd gave, as `/var/run/netns/cni-...`.
    ///
    /// # Errors
    /// When it is no network namespace, or the host's own.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })?;
        let namespace = Self {
            path: path.to_owned(),
            file,
        };
        if !namespace.is_namespace() {
            return Err(Error::NotANamespace(namespace.path));
        }
        if namespace.is_hosts() {
            return Err(Error::HostNetwork(namespace.path));
        }
        Ok(namespace)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What CNI has made in it.
    ///
    /// # Errors
    /// When the kernel does not tell, or the guest cannot have what is there.
    pub fn network(&self) -> Result<Network, Error> {
        let mut netlink = self.netlink()?;
        let links = netlink.links()?;
        read::network(&mut netlink, &links)
    }

    /// Makes a tap for each interface, with `queue_pairs` of them at most at work, and joins both.
    /// What a killed process left in the namespace is taken away before.
    ///
    /// # Errors
    /// When the guest cannot have what is there, another guest has it, or the kernel refuses; then
    /// nothing has changed.
    pub fn wire(&self, queue_pairs: u16) -> Result<Wiring, Error> {
        wiring::wire(self, queue_pairs)
    }

    /// Takes away what a process that was killed left in the namespace: taps and redirections. Does
    /// nothing where there is nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        wiring::remove(&mut self.netlink()?)
    }

    pub(crate) fn netlink(&self) -> Result<Netlink, Error> {
        self.run(Netlink::open)?.map_err(|source| Error::Netlink {
            what: "open a netlink socket".to_owned(),
            source,
        })
    }

    /// Does `work` on a thread inside: one that changed its namespace must not do anything else.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let visit = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        let visited =
            thread::scope(
                |scope| match thread::Builder::new().spawn_scoped(scope, visit) {
                    Ok(thread) => thread
                        .join()
                        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
                    Err(error) => Err(error),
                },
            );
        visited.map_err(|source| Error::Enter {
            path: self.path.clone(),
            source,
        })
    }

    fn is_namespace(&self) -> bool {
        fstatfs(&self.file).is_ok_and(|about| about.f_type == NSFS_MAGIC)
    }

    /// Ours, or that of the first process: a shim may itself have been put somewhere.
    fn is_hosts(&self) -> bool {
        let Ok(theirs) = self.file.metadata() else {
            return false;
        };
        ["/proc/self/ns/net", "/proc/1/ns/net"]
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .any(|ours| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }
}

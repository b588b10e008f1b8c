//! Sees when the kernel kills something of a container's for want of memory.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify;

use super::cgroup;
use super::events::Events;
use super::layout::cgroup_directory;

/// The containers watched and how many such kills the host has been told of.
#[derive(Debug)]
pub(super) struct Watcher {
    /// The kernel reports a change of a cgroup's event file as a modification of it.
    inotify: OwnedFd,
    known: Mutex<HashMap<String, Known>>,
    events: Arc<Events>,
}

#[derive(Debug)]
struct Known {
    watch: Option<i32>,
    kills: u64,
}

impl Watcher {
    pub(super) fn start(events: Arc<Events>) -> io::Result<Arc<Self>> {
        let watcher = Arc::new(Self {
            inotify: inotify::init(inotify::CreateFlags::CLOEXEC)?,
            known: Mutex::default(),
            events,
        });
        let inside = Arc::clone(&watcher);
        std::thread::Builder::new()
            .name("memory".to_owned())
            .stack_size(super::STACK)
            .spawn(move || inside.run())?;
        Ok(watcher)
    }

    pub(super) fn watch(&self, container: &str) {
        let path = cgroup_directory(container).join("memory.events");
        // A kernel without the memory controller has no such file: then nothing is ever killed for it.
        let watch = inotify::add_watch(&self.inotify, &path, inotify::WatchFlags::MODIFY).ok();
        self.lock()
            .insert(container.to_owned(), Known { watch, kills: 0 });
    }

    pub(super) fn forget(&self, container: &str) {
        if let Some(Known {
            watch: Some(watch), ..
        }) = self.lock().remove(container)
        {
            // It is gone already where the cgroup is.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Looks now: a process's end is not to be told before what it died of.
    pub(super) fn look(&self, container: &str) {
        let mut known = self.lock();
        if let Some(known) = known.get_mut(container) {
            let kills = cgroup::oom_kills(container);
            if kills > known.kills {
                self.events.out_of_memory(container);
            }
            known.kills = kills.max(known.kills);
        }
    }

    fn run(&self) {
        let mut space = [MaybeUninit::uninit(); 512];
        let mut reader = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            let watch = match reader.next() {
                Ok(event) => event.wd(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    eprintln!("ringside-agent: cannot watch memory: {error}");
                    return;
                }
            };
            let name = {
                let known = self.lock();
                let found = known.iter().find(|(_, known)| known.watch == Some(watch));
                found.map(|(name, _)| name.clone())
            };
            if let Some(name) = name {
                self.look(&name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

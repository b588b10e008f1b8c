//! Removes what a pod's killed owner left behind.
//!
//! The kernel kills a pod's parts when their owner dies, and unmounts what was mounted in the
//! owner's namespace when the last of them is gone; sockets and logs stay. Should a part outlive
//! its owner after all, it is found by its [`Identity`], so that no innocent process is hit, and after
//! a reboot none at all.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::directory::{OWNER, PodDirectory};
use crate::identity::Identity;
use crate::parts::PID_FILE;
use crate::share::Share;
use crate::{PodError, network};

/// How long killed parts may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an owner that is ending may take: more than it gives its guest to switch itself off.
const OWNER_ENDS: Duration = Duration::from_secs(20);

/// [Removes](remove) what is in the way of a new pod, once the process whose pod it was has ended.
///
/// # Errors
/// When that process lives on, or something cannot be removed.
pub fn make_way(root: &Path, name: &str) -> Result<(), PodError> {
    make_way_within(root, name, OWNER_ENDS)
}

fn make_way_within(root: &Path, name: &str, patience: Duration) -> Result<(), PodError> {
    let directory = PodDirectory::at(root, name)?;
    let owner = Identity::read(&directory.file(OWNER)).filter(|it| *it != Identity::own());
    if let Some(owner) = owner
        && !owner.wait(patience)
    {
        return Err(PodError::Owned {
            name: name.to_owned(),
            owner: owner.pid,
        });
    }
    remove(root, name)
}

/// Ends what is left of a pod and removes its directory. A pod that is not there is no error.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(root: &Path, name: &str) -> Result<(), PodError> {
    let directory = PodDirectory::at(root, name)?;
    let entries = match fs::read_dir(directory.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(PodError::file("read", directory.path()))?,
    };
    let left: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|it| it == PID_FILE))
        .filter_map(|entry| Identity::read(&entry.path()))
        .collect();
    left.iter().for_each(Identity::kill);
    let deadline = Instant::now() + PATIENCE;
    for part in &left {
        // Whoever does not end holds a mount, and that is told.
        let _ = part.wait(deadline.saturating_duration_since(Instant::now()));
    }
    network::remove_abandoned(&directory)?;
    Share::abandoned(directory.shared()).destroy()?;
    directory.remove()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn nothing_is_taken_from_an_owner_that_lives() {
        let root = tempfile::tempdir().unwrap();
        let directory = PodDirectory::create(root.path(), "pod").unwrap();
        let own = Identity::read(&directory.file(OWNER));
        assert_eq!(own, Some(Identity::own()), "whoever made it");
        let mut owner = Command::new("sleep").arg("60").spawn().unwrap();
        let mut part = Command::new("sleep").arg("60").spawn().unwrap();
        let write = |name, text| fs::write(directory.file(name), text).unwrap();
        write(OWNER, Identity::of(owner.id()).to_string());
        write("part.pid", Identity::of(part.id()).to_string());
        let refused = make_way_within(root.path(), "pod", Duration::from_millis(10));
        assert!(matches!(refused, Err(PodError::Owned { owner: pid, .. }) if pid == owner.id()));
        assert!(directory.path().exists() && part.try_wait().unwrap().is_none());
        owner.kill().unwrap();
        owner.wait().unwrap();
        let reaper = std::thread::spawn(move || part.wait());
        make_way_within(root.path(), "pod", Duration::from_millis(10)).unwrap();
        assert!(!reaper.join().unwrap().unwrap().success());
        assert!(!directory.path().exists());
        // A start of its own that failed is in nobody's way.
        PodDirectory::create(root.path(), "pod").unwrap();
        make_way(root.path(), "pod").unwrap();
        assert!(!directory.path().exists());
    }

    #[test]
    fn only_the_process_that_was_meant_is_killed() {
        let root = tempfile::tempdir().unwrap();
        let directory = PodDirectory::create(root.path(), "pod").unwrap();
        let mut part = Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let write = |name, text| fs::write(directory.file(name), text).unwrap();
        write("part.pid", format!("{}\n", Identity::of(part.id())));
        let it = Identity::of(other.id()).to_string();
        let (process, boot) = it.rsplit_once(' ').unwrap();
        write("reused.pid", format!("{} 1 {boot}\n", other.id()));
        write("before-the-reboot.pid", format!("{process} 3b1c2f0e\n"));
        write("of-an-older-version.pid", format!("{process}\n"));
        // Waited for, so that it does not stay a zombie with a start time.
        let reaper = std::thread::spawn(move || part.wait());
        remove(root.path(), "pod").unwrap();
        assert!(!reaper.join().unwrap().unwrap().success());
        assert!(!directory.path().exists());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

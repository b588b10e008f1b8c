//! Who takes turns, and how each is started: every turn with a daemon of its own, as several of
//! them end with their front end.

use std::path::{Path, PathBuf};

use super::Role;
use super::results::ContestantFacts;
use super::workload::{Cache, Target, Workload};
use crate::peer::{ExternalPeer, OurBuild, RunningDaemon};

use super::error::TurnError;

/// Somebody who takes turns, or would.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) version: Option<String>,
    /// Request queues.
    pub(super) queues: u16,
    /// Or why it takes no part.
    pub(super) entry: Result<Entry, String>,
}

/// What is started.
#[derive(Debug)]
pub(in crate::scenario) enum Entry {
    /// A build of ours.
    Ours(OurBuild),
    /// The Rust virtiofsd.
    Rust(PathBuf),
    /// QEMU's, in C.
    Qemu(PathBuf),
    /// Nothing: it runs.
    External(ExternalPeer<Target>),
    /// No daemon.
    Host,
}

impl Contestant {
    /// The ways of caching in which it runs, of those asked for.
    pub(super) fn caches<'a>(&self, asked: &'a [Cache]) -> &'a [Cache] {
        match (&self.entry, self.role) {
            (_, Role::Limit) => &[Cache::Host],
            // Whoever started it has decided.
            (Ok(Entry::External(_)), _) => &[Cache::Auto],
            _ => asked,
        }
    }

    /// Whether it has something to show: more queues than jobs cannot.
    pub(super) fn takes_part(&self, workload: Workload) -> bool {
        self.queues <= workload.jobs()
    }

    pub(super) fn facts(&self, target: Target, ground: &Path) -> ContestantFacts {
        let socket = Path::new("SOCKET");
        let command = match &self.entry {
            Ok(entry) => entry.command(ground, Cache::Auto, self.queues, socket),
            Err(_) => None,
        };
        ContestantFacts {
            target,
            name: self.name.clone(),
            role: self.role,
            queues: self.queues,
            command: command.map_or_else(String::new, |(program, arguments)| {
                format!("{} {}", program.display(), arguments.join(" "))
            }),
            version: self.version.clone(),
            skipped: self.entry.as_ref().err().cloned(),
        }
    }
}

impl Entry {
    /// Starts it on `ground`; nothing for the bare host.
    pub(in crate::scenario) fn start(
        &self,
        ground: &Path,
        cache: Cache,
        queues: u16,
        socket: &Path,
    ) -> Result<Option<RunningDaemon>, TurnError> {
        if let Self::External(peer) = self {
            return Ok(Some(RunningDaemon::adopt(&peer.socket, peer.pid)?));
        }
        let Some((program, arguments)) = self.command(ground, cache, queues, socket) else {
            return Ok(None);
        };
        // Left by the daemon before, if it was killed.
        let _ = std::fs::remove_file(socket);
        Ok(Some(RunningDaemon::start(&program, &arguments, socket)?))
    }

    fn command(
        &self,
        ground: &Path,
        cache: Cache,
        queues: u16,
        socket: &Path,
    ) -> Option<(PathBuf, Vec<String>)> {
        let (ground, socket) = (ground.display(), socket.display());
        match self {
            Self::Ours(build) => {
                let mut arguments = vec![
                    format!("--socket-path={socket}"),
                    format!("--shared-dir={ground}"),
                    format!("--cache={cache}"),
                    format!("--queues={queues}"),
                ];
                arguments.extend_from_slice(&build.extra);
                Some((build.program.clone(), arguments))
            }
            Self::Rust(program) => {
                let arguments = vec![
                    format!("--socket-path={socket}"),
                    format!("--shared-dir={ground}"),
                    format!("--cache={cache}"),
                    "--sandbox=none".to_owned(),
                    "--xattr".to_owned(),
                    // Else xattrs have the kernel ask for `security.capability` before each write.
                    "--killpriv-v2".to_owned(),
                ];
                Some((program.clone(), arguments))
            }
            Self::Qemu(program) => {
                let cache = match cache {
                    Cache::Never => "none",
                    _ => "auto",
                };
                let arguments = vec![
                    format!("--socket-path={socket}"),
                    format!("-osource={ground},cache={cache},sandbox=chroot,xattr,killpriv_v2"),
                ];
                Some((program.clone(), arguments))
            }
            Self::External(_) | Self::Host => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_asked_in_its_own_words() {
        let (ground, socket) = (Path::new("/g"), Path::new("/s"));
        let words = |entry: Entry| {
            let (_, arguments) = entry.command(ground, Cache::Never, 2, socket).unwrap();
            arguments.join(" ")
        };
        assert_eq!(
            words(Entry::Rust("/r".into())),
            "--socket-path=/s --shared-dir=/g --cache=never --sandbox=none --xattr --killpriv-v2"
        );
        assert_eq!(
            words(Entry::Qemu("/c".into())),
            "--socket-path=/s -osource=/g,cache=none,sandbox=chroot,xattr,killpriv_v2"
        );
        assert!(
            Entry::Host
                .command(ground, Cache::Host, 1, socket)
                .is_none()
        );
    }
}

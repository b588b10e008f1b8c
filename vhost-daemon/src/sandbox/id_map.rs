//! Which ids an ordinary user's namespace has (user_namespaces(7)).

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;
use std::str::FromStr;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getegid, geteuid, getpid, waitpid};
use rustix::thread::UnshareFlags;
use thiserror::Error;

use super::SandboxError;
use super::sys;

/// A range of ids in a user namespace, and what they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A map cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not of the form :namespace_id:host_id:count:, with a count of 1 or more")]
pub struct IdMapError(String);

impl FromStr for IdMap {
    type Err = IdMapError;

    /// The first character separates the rest.
    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let parse = || {
            let separator = text.chars().next().filter(|c| !c.is_alphanumeric())?;
            let parts = text.strip_prefix(separator)?.strip_suffix(separator)?;
            let mut numbers = parts.split(separator).map(u32::from_str);
            let mut next = || numbers.next()?.ok();
            let map = Self {
                inside: next()?,
                outside: next()?,
                count: next()?,
            };
            let reach = |first: u32| map.count > 0 && first.checked_add(map.count).is_some();
            let fits = reach(map.inside) && reach(map.outside) && numbers.next().is_none();
            fits.then_some(map)
        };
        parse().ok_or_else(|| IdMapError(text.to_owned()))
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// All of a namespace's maps. None: one's own id, as it is.
#[derive(Clone, Debug, Default)]
pub struct IdMaps {
    /// Users.
    pub users: Vec<IdMap>,
    /// Groups.
    pub groups: Vec<IdMap>,
}

impl IdMaps {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Makes a user namespace and maps its ids.
    pub(super) fn enter_user_namespace(&self) -> Result<(), SandboxError> {
        let users = Maps::new(&self.users, geteuid().as_raw(), &USERS);
        let groups = Maps::new(&self.groups, getegid().as_raw(), &GROUPS);
        let helper = Helper::prepare(&[&users, &groups])?;
        sys::unshare(UnshareFlags::NEWUSER).map_err(SandboxError::UserNamespace)?;
        if let Some(helper) = helper {
            helper.run()?;
        }
        users.write_own()?;
        groups.write_own()
    }
}

struct Kind {
    program: &'static str,
    file: &'static str,
    /// An ordinary user must give up setgroups(2) before it may map a group (user_namespaces(7)).
    deny_setgroups: bool,
}

const USERS: Kind = Kind {
    program: "newuidmap",
    file: "/proc/self/uid_map",
    deny_setgroups: false,
};
const GROUPS: Kind = Kind {
    program: "newgidmap",
    file: "/proc/self/gid_map",
    deny_setgroups: true,
};

/// Maps of one kind of id.
struct Maps {
    maps: Vec<IdMap>,
    kind: &'static Kind,
    /// One's own id alone may be mapped without help.
    own: bool,
}

impl Maps {
    fn new(maps: &[IdMap], own: u32, kind: &'static Kind) -> Self {
        let mut maps = maps.to_vec();
        if maps.is_empty() {
            maps.push(IdMap {
                inside: own,
                outside: own,
                count: 1,
            });
        }
        let own = matches!(maps[..], [IdMap { outside, count: 1, .. }] if outside == own);
        Self { maps, kind, own }
    }

    fn write_own(&self) -> Result<(), SandboxError> {
        if !self.own {
            return Ok(());
        }
        if self.kind.deny_setgroups {
            fs::write("/proc/self/setgroups", "deny").map_err(SandboxError::Map)?;
        }
        let lines: Vec<String> = self.maps.iter().map(IdMap::to_string).collect();
        fs::write(self.kind.file, lines.join("\n")).map_err(SandboxError::Map)
    }

    /// Runs newuidmap(1) or newgidmap(1) on `process`.
    fn ask(&self, process: Pid) -> Result<(), String> {
        let mut command = Command::new(self.kind.program);
        command.arg(process.as_raw_nonzero().to_string());
        for map in &self.maps {
            command.args(map.to_string().split(' '));
        }
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{}: {}", self.kind.program, said.trim()))
        }
    }
}

/// A process that stays outside the namespace until the ids are mapped.
struct Helper {
    process: Pid,
    go: io::PipeWriter,
    said: io::PipeReader,
}

impl Helper {
    /// Starts one if any of `maps` needs it.
    fn prepare(maps: &[&Maps]) -> Result<Option<Self>, SandboxError> {
        let needed: Vec<&&Maps> = maps.iter().filter(|maps| !maps.own).collect();
        if needed.is_empty() {
            return Ok(None);
        }
        for maps in &needed {
            find(maps.kind.program)?;
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| SandboxError::Split(e.into()));
        let ((wait, go), (said, say)) = (pipe()?, pipe()?);
        let threads = sys::threads().map_err(SandboxError::Split)?;
        if threads != 1 {
            return Err(SandboxError::Threads(threads));
        }
        let mapped = getpid();
        match sys::fork().map_err(SandboxError::Split)? {
            Some(process) => Ok(Some(Self {
                process,
                go: go.into(),
                said: said.into(),
            })),
            None => {
                drop((go, said));
                help(&needed, mapped, wait.into(), say.into())
            }
        }
    }

    /// Lets it map the ids, and waits for it.
    fn run(mut self) -> Result<(), SandboxError> {
        let mut said = String::new();
        self.go.write_all(b"!").map_err(SandboxError::Split)?;
        self.said
            .read_to_string(&mut said)
            .map_err(SandboxError::Split)?;
        let ended = waitpid(Some(self.process), WaitOptions::empty());
        let ok = ended.is_ok_and(|end| end.is_some_and(|(_, end)| end.exit_status() == Some(0)));
        if ok {
            Ok(())
        } else {
            Err(SandboxError::Helper { said })
        }
    }
}

/// The helper process: maps when it is told to, or ends when the other one does.
fn help(maps: &[&&Maps], mapped: Pid, mut wait: io::PipeReader, mut say: io::PipeWriter) -> ! {
    if wait.read_exact(&mut [0]).is_err() {
        sys::exit_now(1);
    }
    for maps in maps {
        if let Err(said) = maps.ask(mapped) {
            let _ = say.write_all(said.as_bytes());
            sys::exit_now(1);
        }
    }
    sys::exit_now(0)
}

fn find(program: &'static str) -> Result<(), SandboxError> {
    let searched = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&searched).any(|directory| directory.join(program).is_file()) {
        return Ok(());
    }
    let source = io::ErrorKind::NotFound.into();
    Err(SandboxError::NoHelper { program, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_three_numbers_between_separators() {
        let map = IdMap {
            inside: 0,
            outside: 100_000,
            count: 65_536,
        };
        assert_eq!(":0:100000:65536:".parse(), Ok(map));
        assert_eq!("/0/100000/65536/".parse(), Ok(map));
        let wrong = [
            "",
            ":",
            "0:1:1",
            ":0:1:1",
            ":0:1:0:",
            ":0:1:1:1:",
            ":a:1:1:",
            ":0:-1:1:",
            ":1:0:4294967295:",
            ":0:1:",
        ];
        for text in wrong {
            assert!(text.parse::<IdMap>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_ones_own_id_needs_no_help() {
        let map = |text: &str| text.parse::<IdMap>().unwrap();
        assert!(Maps::new(&[], 7, &USERS).own);
        assert!(Maps::new(&[map(":0:7:1:")], 7, &USERS).own);
        assert!(!Maps::new(&[map(":0:8:1:")], 7, &USERS).own);
        assert!(!Maps::new(&[map(":0:7:2:")], 7, &USERS).own);
        assert!(!Maps::new(&[map(":0:7:1:"), map(":1:100:9:")], 7, &USERS).own);
    }
}

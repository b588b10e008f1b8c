//! Finds the programs a run is made of.

mod elf;

use std::env;
use std::path::{Path, PathBuf};

/// A program of ours, and the variable that points to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its file name.
    pub name: &'static str,
    /// The environment variable that overrides the search.
    pub variable: &'static str,
    /// It runs where there are no shared libraries: a dynamically linked one is passed over.
    pub must_be_static: bool,
}

/// The file daemon.
pub const VIRTIOFSD: Program = Program {
    name: "virtiofsd",
    variable: "RINGSIDE_VIRTIOFSD",
    must_be_static: false,
};
/// The disk daemon.
pub const BLOCK: Program = Program {
    name: "vhost-user-blk",
    variable: "RINGSIDE_BLK",
    must_be_static: false,
};
/// The network daemon.
pub const NETWORK: Program = Program {
    name: "vhost-user-net",
    variable: "RINGSIDE_NET",
    must_be_static: false,
};
/// The socket daemon.
pub const VSOCK: Program = Program {
    name: "vhost-user-vsock",
    variable: "RINGSIDE_VSOCK",
    must_be_static: false,
};
/// containerd's shim, which holds the containers of `ringside create`, too.
pub const SHIM: Program = Program {
    name: "containerd-shim-ringside-v2",
    variable: "RINGSIDE_SHIM",
    must_be_static: false,
};
/// Our VMM.
pub const VMM: Program = Program {
    name: "ringside-vmm",
    variable: "RINGSIDE_VMM",
    must_be_static: false,
};
/// The guest's first process.
pub const AGENT: Program = Program {
    name: "ringside-agent",
    variable: "RINGSIDE_AGENT",
    must_be_static: true,
};
/// The lab's first process.
pub const LAB_INIT: Program = Program {
    name: "ringside-lab-init",
    variable: "RINGSIDE_LAB_INIT",
    must_be_static: true,
};
/// QEMU.
pub const QEMU: Program = Program {
    name: "qemu-system-x86_64",
    variable: "RINGSIDE_QEMU",
    must_be_static: false,
};

/// What a pod is made of.
pub const ALL: [Program; 7] = [VMM, QEMU, VIRTIOFSD, BLOCK, NETWORK, VSOCK, AGENT];

/// Why a program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The variable points nowhere.
    #[error("{variable}={path}: no such file")]
    Override {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The configuration points nowhere.
    #[error("the configuration says that {name} is {path}: there is no such file")]
    Configured {
        /// The program.
        name: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// It is nowhere.
    #[error(
        "cannot find {name}{kind}: it is neither beside ringside ({beside}) nor in PATH; set {variable} to its path"
    )]
    Missing {
        /// The program.
        name: &'static str,
        /// What it must be, if anything special.
        kind: &'static str,
        /// Folder of this executable.
        beside: PathBuf,
        /// The variable that helps.
        variable: &'static str,
    },
}

impl Program {
    /// Where the configuration says it is; where that says nothing, [`find`](Self::find).
    ///
    /// # Errors
    /// When it is not there.
    pub fn find_or(self, configured: Option<&Path>) -> Result<PathBuf, ProgramError> {
        match configured {
            Some(path) if path.is_file() => Ok(path.to_owned()),
            Some(path) => Err(ProgramError::Configured {
                name: self.name,
                path: path.to_owned(),
            }),
            None => self.find(),
        }
    }

    /// Looks in the program's variable, beside this executable, then in `PATH`.
    ///
    /// # Errors
    /// When it is in none of them.
    pub fn find(self) -> Result<PathBuf, ProgramError> {
        if let Some(path) = env::var_os(self.variable).map(PathBuf::from) {
            let missing = || ProgramError::Override {
                variable: self.variable,
                path: path.clone(),
            };
            return path.canonicalize().map_err(|_| missing());
        }
        let beside = executable_folder();
        let search = env::var_os("PATH").unwrap_or_default();
        let found = candidates(&beside).chain(env::split_paths(&search).collect::<Vec<_>>());
        found
            .map(|folder| folder.join(self.name))
            .find(|path| path.is_file() && !(self.must_be_static && elf::is_dynamic(path)))
            .ok_or(ProgramError::Missing {
                name: self.name,
                kind: if self.must_be_static {
                    " (statically linked)"
                } else {
                    ""
                },
                beside,
                variable: self.variable,
            })
    }
}

/// Folders of a build or an installation, nearest first: cargo puts what is built for a named
/// target, as the static agent is, in a tree of its own.
fn candidates(beside: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let target = Path::new("x86_64-unknown-linux-gnu");
    let above = beside.parent().unwrap_or(beside).to_owned();
    let profile = beside.file_name().unwrap_or_default().to_owned();
    let of_target = above.join(target);
    [
        beside.to_owned(),
        of_target.join(profile),
        of_target.join("release"),
        of_target.join("debug"),
    ]
    .into_iter()
}

fn executable_folder() -> PathBuf {
    let executable = env::current_exe().unwrap_or_default();
    let folder = executable.parent().unwrap_or(Path::new("/"));
    // cargo puts tests one folder below the programs they are built with.
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder).to_owned(),
        _ => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_profile_comes_first() {
        let folders: Vec<_> = candidates("/t/debug".as_ref()).collect();
        assert_eq!(folders[0], Path::new("/t/debug"));
        assert_eq!(folders[1], Path::new("/t/x86_64-unknown-linux-gnu/debug"));
    }

    #[test]
    fn a_missing_program_names_its_variable() {
        let program = Program {
            name: "no-such-program",
            variable: "RINGSIDE_NO_SUCH",
            must_be_static: false,
        };
        let error = program.find().unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("RINGSIDE_NO_SUCH"),
            "{error}"
        );
    }
}

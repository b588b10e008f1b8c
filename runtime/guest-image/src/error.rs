use std::io;
use std::path::PathBuf;

/// Why no guest image could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No place to cache anything.
    #[error(
        "no cache directory: neither RINGSIDE_CACHE, XDG_CACHE_HOME nor HOME is set; set RINGSIDE_CACHE"
    )]
    NoCache,
    /// A file could not be read, written or made.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program} ({package} has it: apt-get install {package})")]
    NoTool {
        /// The program.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed ({status}): {message}")]
    Tool {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        message: String,
    },
    /// apt does not know the kernel package.
    #[error(
        "apt knows no package {0}: run `apt-get update` (Debian 12 or later), or install a cloud kernel"
    )]
    UnknownPackage(String),
    /// apt could not fetch the kernel package.
    #[error(
        "cannot download {package}: is there a network? (after a long while `apt-get update` helps; an installed {package} needs no download)"
    )]
    Download {
        /// The package.
        package: String,
        /// What apt-get said.
        #[source]
        source: Box<Error>,
    },
    /// The package unpacked, but holds no kernel.
    #[error("{0} holds no boot/vmlinuz-VERSION with its lib/modules/VERSION")]
    NoKernel(PathBuf),
    /// Not a kernel image by the x86 boot protocol.
    #[error("{path} is no x86 bzImage: {reason}")]
    NotBzImage {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// The source does not know a line of our configuration, or something it depends on is missing.
    #[error("{line} of slim-kernel.config does not take effect: does it depend on another line?")]
    Unconfigurable {
        /// The line.
        line: String,
    },
    /// A module's dependency is nowhere.
    #[error("modules.dep says {module} needs {dependency}, but does not list that file")]
    BrokenDependency {
        /// The module that needs it.
        module: String,
        /// The module that is missing.
        dependency: String,
    },
    /// A file for the initramfs does not fit the format.
    #[error("{name} is too large for an initramfs (cpio newc holds up to 4 GiB a file)")]
    TooLarge {
        /// The file.
        name: String,
    },
}

impl Error {
    /// Turns an I/O error into one that says what was done to which file.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

//! What a test requires of the host. A missing thing fails the test with one sentence that says
//! how to get it; nothing is skipped.

use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

/// A requirement that the host does not meet. `Debug` prints the same sentence as `Display`, so
/// that `unwrap` and a test that returns it are both readable.
#[derive(thiserror::Error)]
pub enum Missing {
    /// A program that no package of ours was found to provide.
    #[error("{name} is not installed: it comes with Debian's package {package}; run `make setup`")]
    Program {
        /// The program.
        name: String,
        /// Where it comes from.
        package: &'static str,
    },
    /// A file or directory.
    #[error("{} is missing: it comes with Debian's package {package}; run `make setup`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where it comes from.
        package: &'static str,
    },
    /// A device node that cannot be opened.
    #[error("{} cannot be opened for reading and writing: {source}", path.display())]
    Device {
        /// The node.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Memory.
    #[error("this needs {wanted} MiB of memory, and the host has {available} MiB to spare")]
    Memory {
        /// What is needed, in MiB.
        wanted: u32,
        /// What there is, in MiB.
        available: u64,
    },
    /// The rights of root.
    #[error("this makes namespaces, mounts or taps: run it as root")]
    Root,
}

impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The packages that `make setup` installs, by program.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("cpio", "cpio"),
    ("ctr", "containerd"),
    ("fio", "fio"),
    ("git", "git"),
    ("iasl", "acpica-tools"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("linux.uml", "user-mode-linux"),
    ("lz4", "lz4"),
    ("mkfs.ext4", "e2fsprogs"),
    ("newgidmap", "uidmap"),
    ("newuidmap", "uidmap"),
    ("nginx", "nginx-light"),
    ("ping", "iputils-ping"),
    ("ab", "apache2-utils"),
    ("qemu-img", "qemu-utils"),
    ("qemu-storage-daemon", "qemu-system-common"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("tc", "iproute2"),
    ("umoci", "umoci"),
    ("virtiofsd", "qemu-system-common"),
];

/// Finds a program in `PATH` or where Debian hides daemons.
///
/// # Errors
/// When it is not installed.
pub fn program(name: &str) -> Result<PathBuf, Missing> {
    let hidden = ["/usr/sbin", "/sbin", "/usr/lib/qemu", "/usr/libexec"].map(PathBuf::from);
    let searched = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&searched)
        .chain(hidden)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Missing::Program {
            name: name.to_owned(),
            package: package(name),
        })
}

/// Requires a file or directory of a package.
///
/// # Errors
/// When it is not there.
pub fn file(path: impl AsRef<Path>, package: &'static str) -> Result<PathBuf, Missing> {
    let path = path.as_ref().to_owned();
    if path.exists() {
        Ok(path)
    } else {
        Err(Missing::File { path, package })
    }
}

/// Requires a device node that this process may open, such as `/dev/net/tun`.
///
/// # Errors
/// When it is not there or not permitted.
pub fn device(path: impl AsRef<Path>) -> Result<(), Missing> {
    let path = path.as_ref();
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map(drop).map_err(|source| Missing::Device {
        path: path.to_owned(),
        source,
    })
}

/// Requires the rights of root.
///
/// # Errors
/// When the process runs as somebody else.
pub fn root() -> Result<(), Missing> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(Missing::Root)
    }
}

/// Requires memory that the host can give without pushing anything else out.
///
/// # Errors
/// When it has less.
pub fn memory_mib(wanted: u32) -> Result<(), Missing> {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match available_mib(&table) {
        Some(available) if available < wanted.into() => Err(Missing::Memory { wanted, available }),
        _ => Ok(()),
    }
}

/// `MemAvailable` of proc_meminfo(5), which is in KiB there.
fn available_mib(table: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib >> 10)
}

fn package(program: &str) -> &'static str {
    let known = PACKAGES.iter().find(|(name, _)| *name == program);
    known.map_or("of that name, or see `apt-file search`", |(_, package)| {
        package
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let error = Missing::Program {
            name: "fio".into(),
            package: package("fio"),
        };
        let sentence = "fio is not installed: it comes with Debian's package fio; run `make setup`";
        assert_eq!(format!("{error:?}"), sentence);
    }

    #[test]
    fn memory_is_counted_in_mib() {
        let table = "MemTotal:       24684084 kB\nMemAvailable:   2097152 kB\n";
        assert_eq!(available_mib(table), Some(2048));
        let error = memory_mib(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("4294967295 MiB"), "{error}");
    }

    #[test]
    fn a_program_in_the_path_is_found() {
        assert!(program("sh").unwrap().is_absolute());
        assert!(program("no-such-program").is_err());
    }
}

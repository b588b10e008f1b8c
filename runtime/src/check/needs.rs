//! The needs, one function each.

use std::env;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use guest_image::{Cache, Kernel, KernelSource};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Need, State};
use crate::disk_image::search_path;
use crate::environment;
use crate::network::RunNetwork;
use crate::programs::{self, Program};
use crate::run::ordinary_user;
use crate::{kvm, sys};

/// Oldest QEMU whose vhost-user devices are known to work.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// All needs, or those of the host alone.
pub(super) fn all(host_alone: bool) -> Vec<Need> {
    let mut needs = vec![kvm(), qemu(), kernel(), io_uring(), memfd(), network()];
    if !host_alone {
        needs.extend(PROGRAMS.map(|(program, why)| own_program(program, why)));
    }
    needs.extend(TOOLS.map(|tool| tool.check()));
    if !rustix::process::geteuid().is_root() {
        needs.push(need("user namespace", ordinary_user::user_namespace()));
        needs.push(further_ids());
    }
    needs.extend([fuse(), cgroup2(), containerd(), configuration()]);
    needs
}

const PROGRAMS: [(Program, &str); 4] = [
    (programs::AGENT, "no guest starts"),
    (programs::VIRTIOFSD, "no root by virtiofs"),
    (programs::BLOCK, "no disks, no root by block"),
    (programs::NETWORK, "no --net"),
];

const TOOLS: [Tool; 6] = [
    Tool {
        name: "mkfs.ext4",
        package: "e2fsprogs",
        without: Some("no images, no --root block"),
    },
    Tool {
        name: "lz4",
        package: "lz4",
        without: Some("Debian's kernel cannot be unpacked"),
    },
    Tool {
        name: "depmod",
        package: "kmod",
        without: Some("no module order for the guest"),
    },
    Tool {
        name: "dpkg-deb",
        package: "dpkg",
        without: Some("the kernel's package cannot be unpacked"),
    },
    Tool {
        name: "busybox",
        package: "busybox-static",
        without: None,
    },
    Tool {
        name: "linux.uml",
        package: "user-mode-linux",
        without: None,
    },
];

fn need(name: &'static str, outcome: Result<String, String>) -> Need {
    match outcome {
        Ok(message) => Need {
            name,
            state: State::Ok,
            message,
        },
        Err(message) => Need {
            name,
            state: State::Missing,
            message,
        },
    }
}

fn optional(name: &'static str, outcome: Result<String, String>) -> Need {
    match outcome {
        Ok(message) => Need {
            name,
            state: State::Ok,
            message,
        },
        Err(message) => Need {
            name,
            state: State::Optional,
            message,
        },
    }
}

fn kvm() -> Need {
    let outcome = match kvm::probe() {
        Ok(speed) => {
            let millions = speed.instructions_per_second / 1_000_000;
            if speed.is_native() {
                Ok(format!(
                    "native: {millions} million ring-0 instructions a second"
                ))
            } else {
                Err(format!(
                    "not native: /dev/kvm interprets ring-0 code ({millions} million instructions a second), so guests are translated (TCG)"
                ))
            }
        }
        Err(error) => Err(format!("{error}; guests are translated (TCG)")),
    };
    optional("kvm", outcome)
}

fn qemu() -> Need {
    need(
        "qemu",
        qemu_version().map_err(|why| format!("{why}: apt-get install qemu-system-x86")),
    )
}

fn qemu_version() -> Result<String, String> {
    let program = programs::QEMU.find().map_err(|error| error.to_string())?;
    let output = Command::new(&program)
        .arg("--version")
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    match parse_version(first) {
        Some(version) if version >= OLDEST_QEMU => Ok(first.to_owned()),
        Some((major, minor)) => Err(format!("QEMU {major}.{minor} is too old, 7.2 is needed")),
        None => Err(format!("{} prints no version", program.display())),
    }
}

fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line
        .split_once("version ")?
        .1
        .split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel() -> Need {
    let located = Cache::open_default().and_then(|cache| Kernel::locate(&cache));
    let outcome = match located {
        Ok(KernelSource::Installed) => Ok("installed".to_owned()),
        Ok(KernelSource::Cached) => Ok("in the cache".to_owned()),
        Ok(KernelSource::Download(package)) => Ok(format!("apt can download {package}")),
        Err(error) => Err(error.to_string()),
    };
    need("guest kernel", outcome)
}

fn io_uring() -> Need {
    let outcome = sys::ring::try_io_uring().map(|()| "usable".to_owned()).map_err(|error| {
        format!("the kernel refuses it ({error}), so vhost-user-blk cannot run: see sysctl kernel.io_uring_disabled")
    });
    need("io_uring", outcome)
}

fn memfd() -> Need {
    let outcome = memfd_create("ringside-check", MemfdFlags::CLOEXEC)
        .map(|_| "usable".to_owned())
        .map_err(|error| format!("no shared guest memory ({error})"));
    need("memfd", outcome)
}

fn network() -> Need {
    let outcome = RunNetwork::create(1)
        .map(|_| "namespace and tap can be made".to_owned())
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("no --net: {error}{}", cause.unwrap_or_default())
        });
    need("network namespace", outcome)
}

fn further_ids() -> Need {
    let outcome = ordinary_user::further_ids().map_err(|why| {
        format!("{why}; till then files of a root by virtiofs can only be this user's")
    });
    optional("further ids", outcome)
}

fn fuse() -> Need {
    let outcome = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(|_| "/dev/fuse opens".to_owned())
        .map_err(|error| format!("/dev/fuse: {error}; only tests use it"));
    optional("fuse", outcome)
}

fn cgroup2() -> Need {
    let outcome = match environment::cgroup() {
        "v2" => Ok("/sys/fs/cgroup".to_owned()),
        other => Err(format!(
            "/sys/fs/cgroup is {other}: hosts' limits on a pod's processes are not set (boot with systemd.unified_cgroup_hierarchy=1)"
        )),
    };
    optional("cgroup2", outcome)
}

fn containerd() -> Need {
    let version = environment::version_of("containerd".as_ref());
    let outcome = match version.as_str() {
        "not found" => {
            Err("only pods under containerd need it: apt-get install containerd".to_owned())
        }
        version => Ok(version.to_owned()),
    };
    optional("containerd", outcome)
}

fn configuration() -> Need {
    let outcome = ringside_config::Settings::load()
        .map(|_| "can be used ('ringside config' shows it)".to_owned())
        .map_err(|error| format!("no pod starts: {error}"));
    need("configuration", outcome)
}

fn own_program(program: Program, without: &str) -> Need {
    let outcome = program
        .find()
        .map(|path| path.display().to_string())
        .map_err(|error| format!("{without}: {error}"));
    need(program.name, outcome)
}

/// A program of the system.
struct Tool {
    name: &'static str,
    package: &'static str,
    /// What does not work without it; `None` when only tests use it.
    without: Option<&'static str>,
}

impl Tool {
    fn check(&self) -> Need {
        let install = format!("apt-get install {}", self.package);
        match (self.find(), self.without) {
            (Some(path), _) => need(self.name, Ok(path.display().to_string())),
            (None, Some(without)) => need(self.name, Err(format!("{without}: {install}"))),
            (None, None) => optional(self.name, Err(format!("only tests use it: {install}"))),
        }
    }

    fn find(&self) -> Option<PathBuf> {
        env::split_paths(&search_path())
            .map(|folder| folder.join(self.name))
            .find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_versions_parse() {
        let line = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)";
        assert_eq!(parse_version(line), Some((7, 2)));
        assert_eq!(parse_version("something else"), None);
    }
}

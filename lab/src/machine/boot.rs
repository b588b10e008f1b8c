//! What the machine boots, and what its first process is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use guest_image::{Cache, GuestImage, Kernel, MODULES, cpio};
use lab_protocol::{CONFIG_PATH, Directory, MachineConfig, Process, RawText};
use ringside::programs;
use rustix::fs::MemfdFlags;

use super::daemons::Share;
use super::{Error, Machine};

/// What tests of a hypervisor and of a container runtime need of the kernel.
const LAB_MODULES: &[&str] = &[
    "kvm_amd",
    "tun",
    "veth",
    "bridge",
    "loop",
    "vsock",
    "vhost_vsock",
];

/// Kernel and initramfs, from the cache or built now.
pub(super) fn image(further: &[String]) -> Result<GuestImage, Error> {
    let init = programs::LAB_INIT.find()?;
    let cache = Cache::open_default()?;
    let kernel = Kernel::obtain(&cache)?;
    let modules: Vec<&str> = MODULES
        .iter()
        .chain(LAB_MODULES)
        .copied()
        .chain(further.iter().map(String::as_str))
        .collect();
    Ok(GuestImage::build(&cache, &kernel, &init, &modules)?)
}

/// The image's initramfs followed by an archive with this run's configuration, in memory.
pub(super) fn initramfs(image: &GuestImage, config: &MachineConfig) -> Result<OwnedFd, Error> {
    let mut archive = cpio::Archive::new();
    let config =
        serde_json::to_vec(config).map_err(|error| Error::io("write the config")(error.into()))?;
    archive.file(CONFIG_PATH, 0o600, &config)?;
    joined(image, &archive.finish()).map_err(Error::io("put the machine's initramfs together"))
}

fn joined(image: &GuestImage, extra: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("lab-initramfs", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(&fs::read(&image.initramfs)?)?;
    file.write_all(extra)?;
    Ok(file.into())
}

impl Machine {
    pub(super) fn config(&self, shares: &[Share]) -> MachineConfig {
        let text = |value: &std::ffi::OsString| RawText::from(value.clone());
        let directories = shares.iter().filter_map(|share| {
            Some(Directory {
                tag: share.tag.clone(),
                path: RawText::from(share.path.clone()?),
            })
        });
        MachineConfig {
            hostname: "lab".to_owned(),
            root: super::daemons::ROOT.to_owned(),
            directories: directories.collect(),
            process: Process {
                args: self.command.iter().map(text).collect(),
                env: self
                    .environment
                    .iter()
                    .map(|(name, value)| (text(name), text(value)))
                    .collect(),
                cwd: RawText::from(self.folder.clone()),
            },
        }
    }
}

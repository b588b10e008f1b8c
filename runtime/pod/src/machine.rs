//! The machine of a pod.

use std::path::Path;

use guest_image::{Cache, GuestImage, Kernel, MODULES};
use tokio::net::UnixStream;

use crate::directory::PodDirectory;
use crate::hypervisor::{
    Accelerator, DiskDevice, FileSystem, Hypervisor, Machine, NetworkDevice, Qemu, RingsideVmm,
    VsockDevice,
};
use crate::pod::{HypervisorChoice, PodConfig};
use crate::{PodError, log, programs};

/// Panic and reboot end the machine at once (`-no-reboot`); the console stays for error messages.
/// The agent limits containers by cgroup2, which must have every controller.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t 8250.nr_uarts=1 tsc=reliable cgroup_no_v1=all";

/// A translated guest runs no other guest's code speculatively, and only loses time by guarding
/// against it or by moving the kernel about.
const TRANSLATED: &str = " mitigations=off nokaslr";

/// The log of the guest's console.
pub(crate) const CONSOLE: &str = "console";

/// What the machine's devices are connected to.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) file_system: FileSystem,
    pub(crate) vsock: VsockDevice,
    pub(crate) disks: Vec<DiskDevice>,
    pub(crate) networks: Vec<NetworkDevice>,
}

/// Kernel and initramfs, from the cache or built now, which can take long.
pub(crate) fn image() -> Result<GuestImage, PodError> {
    let agent = programs::AGENT.find()?;
    let cache = Cache::open_default()?;
    let kernel = Kernel::for_guests(&cache)?;
    Ok(GuestImage::build(&cache, &kernel, &agent, MODULES)?)
}

/// The hypervisor that fits: our VMM where KVM is native, else QEMU.
pub(crate) fn choose(
    choice: HypervisorChoice,
    accelerator: Accelerator,
) -> Result<Box<dyn Hypervisor + Send>, PodError> {
    let ours = match choice {
        HypervisorChoice::Auto => accelerator == Accelerator::Kvm && programs::VMM.find().is_ok(),
        HypervisorChoice::Ringside => true,
        HypervisorChoice::Qemu => false,
    };
    if ours {
        let program = programs::VMM.find()?;
        return Ok(Box::new(RingsideVmm { program }));
    }
    let program = programs::QEMU.find()?;
    Ok(Box::new(Qemu {
        program,
        accelerator,
    }))
}

/// Puts the machine together. Its console is kept in the pod's directory.
pub(crate) fn machine(
    config: &PodConfig,
    directory: &PodDirectory,
    image: &GuestImage,
    accelerator: Accelerator,
    devices: Devices,
) -> Result<Machine, PodError> {
    let extra = match accelerator {
        Accelerator::Kvm => "",
        Accelerator::Tcg => TRANSLATED,
    };
    let path = directory.log(CONSOLE);
    Ok(Machine {
        name: format!("ringside-{}", config.name),
        cpus: config.cpus,
        memory: config.memory,
        kernel: image.vmlinux.clone(),
        initramfs: image.initramfs.clone(),
        command_line: format!("{COMMAND_LINE}{extra}"),
        console: console(&path).map_err(PodError::file("write", &path))?,
        ports: Vec::new(),
        file_systems: vec![devices.file_system],
        disks: devices.disks,
        networks: devices.networks,
        vsock: Some(devices.vsock),
    })
}

fn console(path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    log::record(path, UnixStream::from_std(ours)?)?;
    Ok(theirs.into())
}

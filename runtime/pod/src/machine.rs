//! The machine of a pod.

use std::ffi::OsString;
use std::path::Path;

use guest_image::{Cache, GuestImage, Kernel, MODULES};
use ringside_config::Config;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::daemons::{Reconnects, confinement};
use crate::directory::PodDirectory;
use crate::hypervisor::{
    Accelerator, DiskDevice, FileSystem, Hypervisor, Machine, NetworkDevice, Qemu, RingsideVmm,
    VsockDevice,
};
use crate::plug::Orders;
use crate::pod::{HypervisorChoice, PodConfig};
use crate::{PodError, log, programs};

/// Panic and reboot end the machine at once (`-no-reboot`); the console stays for error messages.
/// The agent limits containers by cgroup2, which must have every controller.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t 8250.nr_uarts=1 tsc=reliable cgroup_no_v1=all";

/// A translated guest runs no other guest's code speculatively, and only loses time by guarding
/// against it or by moving the kernel about. On a host so busy that no timer interrupt comes while the kernel
/// looks for one, it would panic ("IO-APIC + timer doesn't work").
const TRANSLATED: &str = " mitigations=off nokaslr no_timer_check";

/// Name, in a pod's directory, of our VMM's socket for orders, which serves its metrics, too.
pub const VMM_API: &str = "vmm.api";

/// QEMU's.
const QEMU_API: &str = "qmp.sock";

/// The log of the guest's console.
pub(crate) const CONSOLE: &str = "console";

/// What the machine's devices are connected to.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) file_system: Option<FileSystem>,
    pub(crate) vsock: VsockDevice,
    pub(crate) disks: Vec<DiskDevice>,
    pub(crate) networks: Vec<NetworkDevice>,
}

/// Kernel and initramfs: the configuration's, or from the cache, or built now, which can take long.
pub(crate) fn image(config: &Config) -> Result<GuestImage, PodError> {
    let configured = &config.machine;
    if let (Some(kernel), Some(initramfs)) = (&configured.kernel, &configured.initramfs) {
        return Ok(GuestImage {
            version: "configured".to_owned(),
            vmlinux: kernel.clone(),
            initramfs: initramfs.clone(),
        });
    }
    let agent = programs::AGENT.find_or(config.programs.agent.as_deref())?;
    let cache = Cache::open_default()?;
    let kernel = match &configured.kernel {
        Some(path) => installed(path).ok_or_else(|| PodError::Kernel(path.clone()))?,
        None => Kernel::for_guests(&cache)?,
    };
    Ok(GuestImage::build(&cache, &kernel, &agent, MODULES)?)
}

/// The kernel at ROOT/boot/vmlinuz-VERSION: its modules are where its name says.
fn installed(path: &Path) -> Option<Kernel> {
    let version = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
    let folder = path.parent()?;
    folder.ends_with("boot").then(|| Kernel {
        version: version.to_owned(),
        root: folder.parent().unwrap_or(folder).to_owned(),
    })
}

/// The hypervisor that fits: our VMM where KVM is native, else QEMU.
pub(crate) fn choose(
    choice: HypervisorChoice,
    accelerator: Accelerator,
    config: &Config,
    directory: &PodDirectory,
) -> Result<Chosen, PodError> {
    let vmm = || programs::VMM.find_or(config.programs.vmm.as_deref());
    let ours = match choice {
        HypervisorChoice::Auto => accelerator == Accelerator::Kvm && vmm().is_ok(),
        HypervisorChoice::Ringside => true,
        HypervisorChoice::Qemu => false,
    };
    if ours {
        let mut options: Vec<_> = confinement(config).iter().map(OsString::from).collect();
        options.extend(["--log-level".into(), config.log.level.clone().into()]);
        return Ok(Chosen::Ringside(RingsideVmm {
            program: vmm()?,
            api_socket: Some(directory.socket(VMM_API)?),
            options,
        }));
    }
    let program = programs::QEMU.find_or(config.programs.qemu.as_deref())?;
    Ok(Chosen::Qemu(Qemu {
        program,
        accelerator,
        api_socket: Some(directory.socket(QEMU_API)?),
    }))
}

/// What runs the machine.
#[derive(Debug)]
pub(crate) enum Chosen {
    Ringside(RingsideVmm),
    Qemu(Qemu),
}

impl Chosen {
    pub(crate) fn hypervisor(&self) -> &dyn Hypervisor {
        match self {
            Self::Ringside(vmm) => vmm,
            Self::Qemu(qemu) => qemu,
        }
    }

    /// How QEMU runs guest code matters to the kernel's command line, and ours needs KVM.
    pub(crate) fn accelerator(&self) -> Accelerator {
        match self {
            Self::Ringside(_) => Accelerator::Kvm,
            Self::Qemu(qemu) => qemu.accelerator,
        }
    }

    /// Whom to ask for devices that come later.
    pub(crate) fn orders(&self) -> Option<Orders> {
        match self {
            Self::Ringside(vmm) => vmm.api_socket.clone().map(Orders::Ringside),
            Self::Qemu(qemu) => qemu.api_socket.clone().map(Orders::Qemu),
        }
    }

    /// docs/vmm.md, "Daemons"; QEMU: `net/vhost-user.c`, `hw/block/vhost-user-blk.c`.
    pub(crate) fn reconnects(&self) -> Reconnects {
        Reconnects {
            file_systems: matches!(self, Self::Ringside(_)),
            disks: true,
            networks: true,
        }
    }
}

/// Puts the machine together. Its console is kept in the pod's directory.
pub(crate) fn machine(
    config: &PodConfig,
    directory: &PodDirectory,
    image: &GuestImage,
    hypervisor: &dyn Hypervisor,
    accelerator: Accelerator,
    devices: Devices,
) -> Result<Machine, PodError> {
    let extra = match accelerator {
        Accelerator::Kvm => "",
        Accelerator::Tcg => TRANSLATED,
    };
    let mut command_line = format!("{COMMAND_LINE}{extra}");
    for word in &config.configuration.machine.kernel_arguments {
        command_line.push(' ');
        command_line.push_str(word);
    }
    let path = directory.log(CONSOLE);
    Ok(Machine {
        name: format!("ringside-{}", config.name),
        cpus: config.cpus,
        memory: config.memory,
        huge_pages: config.configuration.machine.huge_pages,
        kernel: image.vmlinux.clone(),
        initramfs: image.initramfs.clone(),
        command_line,
        console: console(&path, hypervisor.opens_console())
            .map_err(PodError::file("write", &path))?,
        file_systems: devices.file_system.into_iter().collect(),
        disks: devices.disks,
        networks: devices.networks,
        vsock: Some(devices.vsock),
    })
}

/// A pipe or a socket, whose other end is kept in the log at `path`.
fn console(path: &Path, pipe: bool) -> std::io::Result<std::os::fd::OwnedFd> {
    if pipe {
        let (ours, theirs) = std::io::pipe()?;
        log::record(path, pipe::Receiver::from_owned_fd(ours.into())?)?;
        return Ok(theirs.into());
    }
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    log::record(path, UnixStream::from_std(ours)?)?;
    Ok(theirs.into())
}

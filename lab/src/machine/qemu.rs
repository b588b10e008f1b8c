//! The machine's hardware: QEMU, which translates a processor with AMD's SVM.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Error;
use super::daemons::Share;
use super::running::Parts;
use super::streams::Port;
use crate::need;
use crate::process::{Daemon, DaemonBuilder, Transcript};
use crate::sys::tsc;

/// With `panic=-1` and QEMU's `-no-reboot` a panic ends QEMU. The translator runs no other guest's
/// code speculatively, and QEMU's clock does not drift from the processor's. What the kernel would measure of the
/// processor's counter while the host is busy can be wrong by a factor of ten, and with it the machine's clock:
/// `tsc_early_khz` tells it, for the translator passes the host's counter on. The first processor starts alone, and the
/// machine's first process brings up the others when the kernel has patched its text (`lab/init`, `keys` and
/// `processors`); nor is it to patch its locks for them then. One that stands still on a processor for two minutes is
/// not waited for: the panic tells where.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet reboot=t panic=-1 8250.nr_uarts=1 \
                              mitigations=off nokaslr tsc=reliable cryptomgr.notests \
                              maxcpus=1 noreplace-smp watchdog_thresh=60 softlockup_panic=1";

/// What differs from machine to machine.
pub(super) struct Board<'a> {
    pub(super) memory_mib: u32,
    pub(super) cpus: u16,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: OwnedFd,
}

impl Board<'_> {
    /// Starts QEMU on the daemons that serve `shares`.
    pub(super) fn start(self, ports: Vec<Port>, shares: Vec<Share>) -> Result<Parts, Error> {
        let qemu = need::program("qemu-system-x86_64")?;
        let (near, far) = UnixStream::pair().map_err(Error::io("make a socket pair for QEMU"))?;
        let console = OwnedFd::from(far);
        let mut command = self.processor_and_memory(Daemon::builder(qemu).bound());
        command = command
            .args([
                "-chardev",
                &format!("socket,id=console,fd={}", console.as_raw_fd()),
            ])
            .args([
                "-serial",
                "chardev:console",
                "-device",
                "virtio-serial-pci,id=ports",
            ])
            .arg("-kernel")
            .arg(self.kernel)
            .args([
                "-initrd",
                &format!("/proc/self/fd/{}", self.initramfs.as_raw_fd()),
            ])
            .args([
                "-append",
                &format!("{KERNEL_OPTIONS} tsc_early_khz={}", tsc::khz()),
            ]);
        for port in ports {
            let (name, fd) = (port.name, port.socket.as_raw_fd());
            command = command
                .args(["-chardev", &format!("socket,id={name},fd={fd}")])
                .args([
                    "-device",
                    &format!("virtserialport,bus=ports.0,chardev={name},name={name}"),
                ])
                .keep(port.socket);
        }
        let mut daemons = Vec::new();
        for share in shares {
            let (tag, fd) = (&share.tag, share.front_end.as_raw_fd());
            command = command
                .args(["-chardev", &format!("socket,id={tag},fd={fd}")])
                .args([
                    "-device",
                    &format!("vhost-user-fs-pci,chardev={tag},tag={tag}"),
                ])
                .keep(share.front_end);
            daemons.push(share.daemon);
        }
        let hypervisor = command.keep(console).keep(self.initramfs).spawn()?;
        Ok(Parts {
            hypervisor,
            console: Transcript::of(Some(near)),
            daemons,
        })
    }

    fn processor_and_memory(&self, command: DaemonBuilder) -> DaemonBuilder {
        let mib = self.memory_mib;
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(["-name", "ringside-lab", "-accel", "tcg,thread=multi"])
            // 57-bit addresses only make every page walk longer here.
            .args([
                "-cpu",
                "max,+svm,+npt,-la57",
                "-smp",
                &self.cpus.to_string(),
            ])
            .args([
                "-M",
                "q35,memory-backend=memory,smbus=off,sata=off,vmport=off",
            ])
            .args(["-m", &format!("{mib}M"), "-object"])
            .arg(format!(
                "memory-backend-memfd,id=memory,size={mib}M,share=on"
            ))
    }
}

//! `ringside-vmm` (docs/vmm.md), which needs KVM.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Hypervisor, Machine, NetworkBackend};

/// Our VMM.
#[derive(Debug)]
pub struct RingsideVmm {
    /// The program.
    pub program: PathBuf,
    /// Where it takes orders.
    pub api_socket: Option<PathBuf>,
    /// More options.
    pub options: Vec<OsString>,
}

impl Hypervisor for RingsideVmm {
    fn name(&self) -> &'static str {
        "ringside-vmm"
    }

    fn opens_console(&self) -> bool {
        true
    }

    fn command(&self, machine: &Machine) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kernel").arg(&machine.kernel);
        command.arg("--initramfs").arg(&machine.initramfs);
        command.arg("--cmdline").arg(&machine.command_line);
        command.arg("--cpus").arg(machine.cpus.to_string());
        // The option's unit; machines have whole MiB.
        command
            .arg("--memory")
            .arg(format!("{}M", machine.memory >> 20));
        command.args(["--no-reboot", "--no-probe", "--rng"]);
        if machine.huge_pages {
            command.arg("--hugepages");
        }
        if let Some(path) = &self.api_socket {
            command.arg("--api-socket").arg(path);
        }
        command.args(&self.options);
        // The descriptor is inherited under its number.
        let console = machine.console.as_raw_fd();
        command
            .arg("--serial")
            .arg(format!("file=/dev/fd/{console}"));
        for file_system in &machine.file_systems {
            let tag = format!(",tag={},queues={}", file_system.tag, file_system.queues);
            command.arg("--fs").arg(device(&file_system.socket, &tag));
        }
        for disk in &machine.disks {
            let queues = format!(",queues={}", disk.queues);
            command.arg("--disk").arg(device(&disk.socket, &queues));
        }
        for network in &machine.networks {
            // It knows vhost-user only; `Tap` is for comparisons under QEMU.
            if let NetworkBackend::VhostUser(socket) = &network.backend {
                let rest = format!(",mac={},queues={}", network.mac, network.queue_pairs);
                command.arg("--net").arg(device(socket, &rest));
            }
        }
        if let Some(vsock) = &machine.vsock {
            let cid = format!(",cid={}", vsock.cid);
            command.arg("--vsock").arg(device(&vsock.socket, &cid));
        }
        command
    }
}

fn device(socket: &Path, rest: &str) -> OsString {
    let mut text = OsString::from("socket=");
    text.push(socket);
    text.push(rest);
    text
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::{DiskDevice, FileSystem, NetworkDevice, VsockDevice};
    use super::*;

    #[test]
    fn every_device_becomes_an_option() {
        let machine = Machine {
            name: "test".into(),
            cpus: 2,
            memory: 256 << 20,
            huge_pages: true,
            kernel: "/k".into(),
            initramfs: "/i".into(),
            command_line: "quiet".into(),
            console: File::open("/dev/null").unwrap().into(),
            file_systems: vec![FileSystem {
                socket: "/fs".into(),
                tag: "shared".into(),
                queues: 1,
            }],
            disks: vec![DiskDevice {
                socket: "/d".into(),
                queues: 2,
            }],
            networks: vec![NetworkDevice {
                backend: NetworkBackend::VhostUser("/n".into()),
                mac: "52:54:00:00:02:02".into(),
                queue_pairs: 1,
            }],
            vsock: Some(VsockDevice {
                socket: "/v".into(),
                cid: 3,
            }),
        };
        let vmm = RingsideVmm {
            program: "vmm".into(),
            api_socket: Some("/api".into()),
            options: vec!["--log-level=debug".into()],
        };
        let command = vmm.command(&machine);
        let line: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let line = line.join(" ");
        for part in [
            "--memory 256M",
            "--hugepages --api-socket /api --log-level=debug",
            "--fs socket=/fs,tag=shared,queues=1",
            "--disk socket=/d,queues=2",
            "--net socket=/n,mac=52:54:00:00:02:02,queues=1",
            "--vsock socket=/v,cid=3",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

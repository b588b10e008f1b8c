//! QEMU 7.2 or later, with vhost-user devices only.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Accelerator, Hypervisor, Machine, NetworkBackend, NetworkDevice};

/// The smaller microvm board boots half a second sooner, but it has no timer to measure the
/// processor's clock against: on a busy host a translated guest then hangs while it starts.
const BOARD: &str = "q35,memory-backend=memory,smbus=off,sata=off,vmport=off";

/// Looks for a lost daemon every second. Of QEMU's vhost-user devices, disks and interfaces can go on
/// with the next one; file systems and sockets cannot.
const RECONNECT: &str = "reconnect=1,";

/// Ports for devices that come later, `port0` and so on: q35's own bus takes none.
pub const ROOT_PORTS: usize = 8;

/// QEMU and how it runs guest code.
#[derive(Debug)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// How guest code runs.
    pub accelerator: Accelerator,
    /// Where it takes orders (QMP). Without, it has no ports for disks that come later.
    pub api_socket: Option<PathBuf>,
}

impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn command(&self, machine: &Machine) -> Command {
        let mut arguments = Arguments::default();
        self.add_board(&mut arguments, machine);
        add_console(&mut arguments, machine);
        add_file_systems_and_disks(&mut arguments, machine);
        for (index, network) in machine.networks.iter().enumerate() {
            self.add_network(&mut arguments, index, network);
        }
        if let Some(vsock) = &machine.vsock {
            let path = escaped(&vsock.socket);
            arguments.prefixed("-chardev", "socket,id=vsock,path=", &path);
            arguments.option("-device", "vhost-user-vsock-pci,chardev=vsock");
        }
        if let Some(path) = &self.api_socket {
            let path = escaped(path);
            arguments.prefixed(
                "-chardev",
                "socket,id=orders,server=on,wait=off,path=",
                &path,
            );
            arguments.option("-mon", "chardev=orders,mode=control");
            for port in 0..ROOT_PORTS {
                let port = format!("pcie-root-port,id=port{port},chassis={}", port + 1);
                arguments.option("-device", port);
            }
        }
        let mut command = Command::new(&self.program);
        command.args(arguments.0);
        command
    }
}

impl Qemu {
    fn add_board(&self, arguments: &mut Arguments, machine: &Machine) {
        for switch in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            arguments.switch(switch);
        }
        arguments.option("-display", "none");
        arguments.option("-name", &machine.name);
        arguments.option("-M", BOARD);
        let (accelerator, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            // 57-bit addresses only make every page walk longer here.
            Accelerator::Tcg => ("tcg,thread=multi", "max,-la57"),
        };
        arguments.option("-accel", accelerator);
        arguments.option("-cpu", cpu);
        arguments.option("-smp", machine.cpus);
        arguments.option("-m", format!("{}B", machine.memory));
        let size = machine.memory;
        let huge = if machine.huge_pages {
            ",hugetlb=on,hugetlbsize=2M"
        } else {
            ""
        };
        arguments.option(
            "-object",
            format!("memory-backend-memfd,id=memory,size={size}B,share=on{huge}"),
        );
        arguments.path_option("-kernel", &machine.kernel);
        arguments.path_option("-initrd", &machine.initramfs);
        arguments.option("-append", &machine.command_line);
    }

    fn add_network(&self, arguments: &mut Arguments, index: usize, network: &NetworkDevice) {
        let pairs = network.queue_pairs;
        match &network.backend {
            NetworkBackend::VhostUser(socket) => {
                let chardev = format!("socket,id=nets{index},{RECONNECT}path=");
                arguments.prefixed("-chardev", &chardev, &escaped(socket));
                let back_end =
                    format!("vhost-user,id=net{index},chardev=nets{index},queues={pairs}");
                arguments.option("-netdev", back_end);
            }
            NetworkBackend::Tap(queues) => {
                let fds: Vec<_> = queues.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
                let name = if fds.len() > 1 { "fds" } else { "fd" };
                let back_end = format!("tap,id=net{index},vhost=off,{name}={}", fds.join(":"));
                arguments.option("-netdev", back_end);
            }
        }
        let multi_queue = if pairs > 1 { "on" } else { "off" };
        let vectors = self.network_vectors(network);
        // No option ROM: nothing boots from the network.
        arguments.option(
            "-device",
            format!(
                "virtio-net-pci,netdev=net{index},romfile=,mq={multi_queue},vectors={vectors},mac={}",
                network.mac
            ),
        );
    }

    /// MSI-X vectors: two a pair, one for configuration changes, one for the control queue. None
    /// for vhost-user without KVM: QEMU 7.2 then crashes, because it uses KVM's irqfds there.
    fn network_vectors(&self, network: &NetworkDevice) -> u16 {
        match (&network.backend, self.accelerator) {
            (NetworkBackend::VhostUser(_), Accelerator::Tcg) => 0,
            _ => 2 * u16::from(network.queue_pairs) + 2,
        }
    }
}

fn add_console(arguments: &mut Arguments, machine: &Machine) {
    let console = machine.console.as_raw_fd();
    arguments.option("-chardev", format!("socket,id=console,fd={console}"));
    arguments.option("-serial", "chardev:console");
}

fn add_file_systems_and_disks(arguments: &mut Arguments, machine: &Machine) {
    for (index, file_system) in machine.file_systems.iter().enumerate() {
        let id = format!("fs{index}");
        let tag = &file_system.tag;
        let queues = match file_system.queues {
            1 => String::new(),
            several => format!(",num-request-queues={several}"),
        };
        arguments.prefixed(
            "-chardev",
            &format!("socket,id={id},path="),
            &escaped(&file_system.socket),
        );
        arguments.option(
            "-device",
            // A longer queue lets a request carry a megabyte.
            format!("vhost-user-fs-pci,chardev={id},tag={tag},queue-size=1024{queues}"),
        );
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        let id = format!("disk{index}");
        let queues = disk.queues;
        arguments.prefixed(
            "-chardev",
            &format!("socket,id={id},{RECONNECT}path="),
            &escaped(&disk.socket),
        );
        arguments.option(
            "-device",
            format!("vhost-user-blk-pci,chardev={id},num-queues={queues}"),
        );
    }
}

/// A path inside an option list, where a comma is written twice.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.iter().flat_map(|byte| {
        let times = if *byte == b',' { 2 } else { 1 };
        std::iter::repeat_n(*byte, times)
    });
    OsString::from_vec(doubled.collect())
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn switch(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Display) {
        self.0.extend([name.into(), value.to_string().into()]);
    }

    fn path_option(&mut self, name: &str, path: &Path) {
        self.0.extend([name.into(), path.into()]);
    }

    fn prefixed(&mut self, name: &str, prefix: &str, value: &OsString) {
        let mut whole = OsString::from(prefix);
        whole.push(value);
        self.0.extend([name.into(), whole]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::{DiskDevice, FileSystem, VsockDevice};
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "ringside-test".into(),
            cpus: 3,
            memory: 1 << 28,
            huge_pages: true,
            kernel: "/k".into(),
            initramfs: "/i".into(),
            command_line: "quiet".into(),
            console: File::open("/dev/null").unwrap().into(),
            file_systems: vec![FileSystem {
                socket: "/fs,1".into(),
                tag: "root".into(),
                queues: 2,
            }],
            disks: vec![DiskDevice {
                socket: "/d".into(),
                queues: 2,
            }],
            networks: vec![NetworkDevice {
                backend: NetworkBackend::VhostUser("/n".into()),
                mac: "52:54:00:00:02:02".into(),
                queue_pairs: 2,
            }],
            vsock: Some(VsockDevice {
                socket: "/v".into(),
                cid: 3,
            }),
        }
    }

    #[test]
    fn every_device_becomes_an_option() {
        let qemu = Qemu {
            program: "qemu".into(),
            accelerator: Accelerator::Tcg,
            api_socket: Some("/q".into()),
        };
        let command = qemu.command(&machine());
        let line: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let line = line.join(" ");
        for part in [
            "-smp 3 -m 268435456B",
            "-chardev socket,id=console,fd=",
            "size=268435456B,share=on,hugetlb=on",
            "socket,id=fs0,path=/fs,,1 -device vhost-user-fs-pci,chardev=fs0,tag=root,",
            "num-request-queues=2",
            "socket,id=disk0,reconnect=1,path=/d -device vhost-user-blk-pci,chardev=disk0,num-queues=2",
            "vhost-user,id=net0,chardev=nets0,queues=2",
            "socket,id=vsock,path=/v -device vhost-user-vsock-pci,chardev=vsock",
            "mq=on,vectors=0",
            "path=/q -mon chardev=orders,mode=control -device pcie-root-port,id=port0,chassis=1",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

//! How each VMM is started on the same guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::config::BootConfig;
use super::devices::Devices;
use crate::scenario::Role;

/// What runs in the VMM.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: Option<PathBuf>,
    pub(super) memory_mib: u32,
}

/// One processor, nothing on the console but the mark.
pub(super) const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable";
const MAC: &str = "02:00:00:00:00:02";

/// A VMM.
#[derive(Clone, Debug)]
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) role: Role,
    program: Program,
}

#[derive(Clone, Debug)]
enum Program {
    Ours(PathBuf),
    Qemu { micro: bool },
    Template(String),
}

/// Ours, other builds of it, QEMU's two boards, and what the options name.
pub(super) fn line_up(config: &BootConfig) -> Vec<Contestant> {
    let entry = |name: &str, role, program| Contestant {
        name: name.to_owned(),
        role,
        program,
    };
    let mut all = vec![entry(
        "ringside",
        Role::Ours,
        Program::Ours(config.ours.clone()),
    )];
    for (name, path) in &config.other_builds {
        all.push(entry(name, Role::OtherBuild, Program::Ours(path.into())));
    }
    for (name, micro) in [("qemu microvm", true), ("qemu q35", false)] {
        all.push(entry(name, Role::Peer, Program::Qemu { micro }));
    }
    for (name, template) in &config.peers {
        all.push(entry(name, Role::Peer, Program::Template(template.clone())));
    }
    all.retain(|it| config.only.takes(&it.name));
    all
}

impl Contestant {
    /// Starts the guest with its serial port on standard output.
    pub(super) fn command(&self, guest: &Guest, devices: Option<&Devices>) -> Command {
        match &self.program {
            Program::Ours(path) => ours(path, guest, devices),
            Program::Qemu { micro } => qemu(*micro, guest, devices),
            Program::Template(template) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("exec {}", fill(template, guest, devices))]);
                command
            }
        }
    }
}

fn ours(program: &Path, guest: &Guest, devices: Option<&Devices>) -> Command {
    let mut command = Command::new(program);
    command.args(["--serial", "tty", "--log-level", "error", "--cmdline"]);
    command.args([COMMAND_LINE, "--memory"]);
    command.arg(format!("{}M", guest.memory_mib));
    command.arg("--kernel").arg(&guest.kernel);
    if let Some(initramfs) = &guest.initramfs {
        command.arg("--initramfs").arg(initramfs);
    }
    if let Some(devices) = devices {
        let socket = |path: &Path| format!("socket={}", path.display());
        command.args(["--disk", &socket(&devices.blk)]);
        command.args(["--net", &format!("{},mac={MAC}", socket(&devices.net))]);
        command.args(["--fs", &format!("{},tag=perf", socket(&devices.fs))]);
    }
    command
}

/// Without what a QEMU machine has by default, on the processor of the host.
///
/// Without the help for guests that write to the local APIC's task priority (`kvmvapic`), too: on KVM over AMD's SVM
/// QEMU then writes the segments back as KVM told them, the task register marked busy, and QEMU's translator (7.2,
/// `check_io`), on which KVM runs in the lab, forbids programs every port from then on.
fn qemu(micro: bool, guest: &Guest, devices: Option<&Devices>) -> Command {
    let mib = guest.memory_mib;
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-accel", "kvm", "-cpu", "host"]);
    command.args(["-global", "kvm-apic.vapic=off"]);
    let board = match micro {
        true => "microvm,memory-backend=memory",
        false => "q35,memory-backend=memory,smbus=off,sata=off,vmport=off",
    };
    command.args(["-M", board, "-smp", "1", "-m", &format!("{mib}M")]);
    let memory = format!("memory-backend-memfd,id=memory,size={mib}M,share=on");
    command.args(["-object", &memory, "-serial", "stdio"]);
    command.arg("-kernel").arg(&guest.kernel);
    if let Some(initramfs) = &guest.initramfs {
        command.arg("-initrd").arg(initramfs);
        command.args(["-append", COMMAND_LINE]);
    }
    if let Some(devices) = devices {
        let kinds = match micro {
            true => [
                "vhost-user-blk",
                "virtio-net-device",
                "vhost-user-fs-device",
            ],
            false => [
                "vhost-user-blk-pci",
                "virtio-net-pci,romfile=",
                "vhost-user-fs-pci",
            ],
        };
        let sockets = [
            ("disk", &devices.blk),
            ("net", &devices.net),
            ("fs", &devices.fs),
        ];
        for (id, path) in sockets {
            let chardev = format!("socket,id={id},path={}", path.display());
            command.args(["-chardev", &chardev]);
        }
        command.args(["-netdev", "vhost-user,id=lan,chardev=net"]);
        command.args(["-device", &format!("{},chardev=disk", kinds[0])]);
        command.args(["-device", &format!("{},netdev=lan,mac={MAC}", kinds[1])]);
        command.args(["-device", &format!("{},chardev=fs,tag=perf", kinds[2])]);
    }
    command
}

fn fill(template: &str, guest: &Guest, devices: Option<&Devices>) -> String {
    let path =
        |path: Option<&PathBuf>| path.map_or_else(String::new, |it| it.display().to_string());
    let socket = |of: fn(&Devices) -> &PathBuf| path(devices.map(of));
    template
        .replace("{kernel}", &path(Some(&guest.kernel)))
        .replace("{initramfs}", &path(guest.initramfs.as_ref()))
        .replace("{cmdline}", COMMAND_LINE)
        .replace("{memory}", &guest.memory_mib.to_string())
        .replace("{blk}", &socket(|it| &it.blk))
        .replace("{net}", &socket(|it| &it.net))
        .replace("{fs}", &socket(|it| &it.fs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled() {
        let guest = Guest {
            kernel: "/k".into(),
            initramfs: None,
            memory_mib: 256,
        };
        assert_eq!(
            fill(
                "vmm --kernel {kernel} -m {memory} -i '{initramfs}' -d {blk}.",
                &guest,
                None
            ),
            "vmm --kernel /k -m 256 -i '' -d ."
        );
    }
}

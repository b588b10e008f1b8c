//! A guest that serves iperf3, on a device of ours or of its hypervisor's.

use std::path::Path;
use std::time::Duration;

use lab::guest::{self, Guest, QemuGuest, UmlGuest};

use crate::scenario::net::frame::{GUEST_MAC, address};
use crate::scenario::net::workload::Target;

/// From the guest's start to its word that it is there.
const BOOT: Duration = Duration::from_secs(60);
const READY: &str = "network-is-up";

/// What a guest's frames go through.
pub(super) enum Device<'a> {
    /// A daemon at this socket.
    VhostUser(&'a Path),
    /// The hypervisor's own on the tap of this name; QEMU's with MSI-X or without.
    BuiltIn { tap: &'a str, msix: bool },
}

/// Boots a guest at the address that belongs to tap number `tap`.
pub(super) fn boot(target: Target, device: &Device<'_>, tap: u8) -> Result<Guest, guest::Error> {
    let mut guest = match target {
        Target::Uml => uml(device, tap).start()?,
        _ => qemu(device, tap).start()?,
    };
    guest.wait_output(READY)?;
    Ok(guest)
}

fn qemu(device: &Device<'_>, tap: u8) -> QemuGuest {
    let guest = QemuGuest::new(script("eth0", tap))
        .program("iperf3")
        .limit(BOOT)
        // Tells the threads that run the guest's processors by their names.
        .options(["-name", "guest,debug-threads=on"]);
    match device {
        // QEMU 7.2 without KVM crashes when a guest starts vhost-user-net with MSI-X.
        Device::VhostUser(socket) => guest
            .options(["-global", "virtio-net-pci.vectors=0"])
            .net(*socket),
        Device::BuiltIn { tap, msix } => {
            let netdev = format!("tap,id=own,ifname={tap},script=no,downscript=no,vhost=off");
            let vectors = if *msix { "" } else { ",vectors=0" };
            let device = format!("virtio-net-pci,netdev=own,romfile={vectors}");
            guest.options(["-netdev".to_owned(), netdev, "-device".to_owned(), device])
        }
    }
}

fn uml(device: &Device<'_>, tap: u8) -> UmlGuest {
    match device {
        Device::VhostUser(socket) => UmlGuest::new(script("eth0", tap)).net(socket),
        Device::BuiltIn { tap: name, .. } => UmlGuest::new(script("vec0", tap))
            .argument(format!("vec0:transport=tap,ifname={name},depth=128,gro=1")),
    }
    .limit(BOOT)
}

fn script(device: &str, tap: u8) -> String {
    let [a, b, c, d] = address(tap, true);
    let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "set -e
ip link set {device} address {mac}
ip addr add {a}.{b}.{c}.{d}/30 dev {device}
ip link set {device} up
echo {READY}
export TMPDIR=/run
exec iperf3 -s >/dev/null 2>&1
"
    )
}

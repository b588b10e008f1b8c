//! Real guests whose front ends none of us wrote: QEMU and User-Mode Linux.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use lab::guest::{QemuGuest, UmlGuest, VhostUser};
use lab::netns::{NetNamespace, Tap};
use lab::process::Daemon;
use lab::scratch::Scratch;
use network::{PROGRAM, SOON};

const LEN: usize = 24 << 20;

/// A daemon on a tap with an address: 10.9.0.1 in the namespace, 10.9.0.2 for the guest.
struct Host {
    daemon: Daemon,
    namespace: NetNamespace,
    scratch: Scratch,
}

impl Host {
    fn start(test: &str, pairs: &str, mtu: Option<u16>) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let namespace = NetNamespace::new().unwrap();
        let tap = Tap {
            multi_queue: pairs != "1",
            address: Some("10.9.0.1/24"),
            mtu,
        };
        namespace.add_tap("guest", &tap).unwrap();
        let socket = scratch.join("net.sock");
        let builder = Daemon::builder(PROGRAM)
            .args(["--tap", "guest", "--queue-pairs", pairs, "--socket-path"])
            .arg(&socket);
        let mut daemon = namespace.spawn(builder).unwrap();
        daemon.wait_stderr("waiting for a front end", SOON).unwrap();
        Self {
            daemon,
            namespace,
            scratch,
        }
    }

    fn check(self) {
        let stderr = self.daemon.stderr();
        assert!(!stderr.contains("broke a rule"), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(!stderr.contains("ERROR"), "{stderr}");
        drop(self.scratch);
    }
}

/// Fetches what the host sends, stores it, then sends it back on a second connection.
fn script(interface: &str, more: &str) -> String {
    format!(
        r#"
set -e
busybox ip addr add 10.9.0.2/24 dev {interface}
busybox ip link set {interface} up
{more}
busybox ping -c 2 -W 5 10.9.0.1
busybox ping -c 2 -s 1400 -W 5 10.9.0.1
mkdir -p /run
cd /run
busybox nc 10.9.0.1 7000 </dev/null >got
busybox sha256sum got
busybox nc 10.9.0.1 7000 <got >/dev/null
"#
    )
}

fn transfer(host: &Host, start: impl FnOnce() -> String) {
    let payload = lab::pattern(77, LEN);
    let listen = || TcpListener::bind("10.9.0.1:7000");
    let listener = host.namespace.run(listen).unwrap().unwrap();
    let expected = payload.clone();
    let partner = thread::spawn(move || {
        let mut out = listener.accept()?.0;
        out.write_all(&payload)?;
        drop(out);
        let mut back = Vec::new();
        listener.accept()?.0.read_to_end(&mut back)?;
        std::io::Result::Ok(back)
    });
    let output = start();
    assert_eq!(output.matches(" 0% packet loss").count(), 2, "{output}");
    let back = partner.join().unwrap().unwrap();
    assert_eq!(back.len(), LEN, "{output}");
    assert!(back == expected, "bytes changed on the way");
}

/// QEMU 7.2 without KVM crashes when a guest starts vhost-user-net with MSI-X: it uses KVM's irqfds
/// although there are none.
const WITHOUT_MSIX: [&str; 2] = ["-global", "virtio-net-pci.vectors=0"];

#[test]
fn a_qemu_guest_pings_and_transfers_both_ways() {
    let host = Host::start("net-qemu", "1", None);
    let socket = host.scratch.join("net.sock");
    transfer(&host, || {
        let guest = QemuGuest::new(script("eth0", ""))
            .options(WITHOUT_MSIX)
            .net(&socket);
        guest.run().unwrap().success().unwrap()
    });
    host.check();
}

#[test]
fn a_qemu_guest_of_two_pairs_and_a_large_mtu() {
    let host = Host::start("net-qemu-mq", "2", Some(9000));
    let socket = host.scratch.join("net.sock");
    let more = "busybox ip link set eth0 mtu 9000; test -d /sys/class/net/eth0/queues/rx-1";
    transfer(&host, || {
        let guest = QemuGuest::new(script("eth0", more))
            .cpus(2)
            .options(WITHOUT_MSIX)
            .net(VhostUser::new(&socket).queues(2));
        guest.run().unwrap().success().unwrap()
    });
    let stderr = host.daemon.stderr();
    assert!(stderr.contains("multi_queue=true"), "{stderr}");
    host.check();
}

#[test]
fn a_uml_guest_pings_and_transfers_both_ways() {
    let host = Host::start("net-uml", "1", None);
    let socket = host.scratch.join("net.sock");
    transfer(&host, || {
        let guest = UmlGuest::new(script("eth0", "")).net(&socket);
        guest.run().unwrap().success().unwrap()
    });
    host.check();
}

#[test]
fn a_uml_guest_uses_two_pairs_through_the_control_queue() {
    let host = Host::start("net-uml-mq", "2", None);
    let socket = host.scratch.join("net.sock");
    transfer(&host, || {
        let guest = UmlGuest::new(script("eth0", "")).net(&socket);
        guest.run().unwrap().success().unwrap()
    });
    host.check();
}

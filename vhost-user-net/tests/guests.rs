//! Real guests whose front ends none of us wrote: QEMU and User-Mode Linux.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

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

/// Reads what the host sends and tells its sum; keeps what the host sends then, and sends it back
/// `repeats` times.
///
/// In User-Mode Linux a system call takes ten times as long as elsewhere, and busybox's nc makes one for
/// each KiB: it is bash's own TCP.
fn script(more: &str, repeats: usize) -> String {
    format!(
        r#"
set -e
busybox ip addr add 10.9.0.2/24 dev eth0
busybox ip link set eth0 up
{more}
busybox ping -c 2 -W 5 10.9.0.1
busybox ping -c 2 -s 1400 -W 5 10.9.0.1
cd /run
bash -c 'cat </dev/tcp/10.9.0.1/7000' | sha256sum
bash -c 'cat </dev/tcp/10.9.0.1/7000' >got
bash -c 'exec >/dev/tcp/10.9.0.1/7000; i=0; while [ $i -lt {repeats} ]; do cat got; i=$((i+1)); done'
"#
    )
}

/// Sends `repeats` pieces of 24 MiB to the guest and as many back: the sums and bytes must be equal.
fn transfer(host: &Host, repeats: usize, start: impl FnOnce() -> String) {
    let piece = lab::pattern(77, LEN);
    let listen = || TcpListener::bind("10.9.0.1:7000");
    let listener = host.namespace.run(listen).unwrap().unwrap();
    let partner = thread::spawn(move || {
        let mut out = listener.accept()?.0;
        let mut summer = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut sums = summer.stdin.take().unwrap();
        for _ in 0..repeats {
            out.write_all(&piece)?;
            sums.write_all(&piece)?;
        }
        drop((out, sums));
        listener.accept()?.0.write_all(&piece)?;
        let mut back = listener.accept()?.0;
        let mut got = vec![0; LEN];
        for _ in 0..repeats {
            back.read_exact(&mut got)?;
            assert!(got == piece, "bytes changed on the way");
        }
        assert_eq!(back.read(&mut got)?, 0, "more came than was sent");
        let sum = String::from_utf8(summer.wait_with_output()?.stdout);
        std::io::Result::Ok(sum.unwrap())
    });
    let output = start();
    assert_eq!(output.matches(" 0% packet loss").count(), 2, "{output}");
    let sum = partner.join().unwrap().unwrap();
    let sum = sum.split_whitespace().next().unwrap();
    assert!(output.contains(sum), "{output}");
}

/// Sends `repeats` pieces of 24 MiB to a guest that sends back whatever it gets: every byte must come
/// back as it went.
fn echo(host: &Host, repeats: usize, more: &str, start: impl FnOnce(String) -> String) {
    let piece = lab::pattern(78, LEN);
    let listen = || TcpListener::bind("10.9.0.1:7000");
    let listener = host.namespace.run(listen).unwrap().unwrap();
    let partner = thread::spawn(move || {
        let mut back = listener.accept()?.0;
        let mut out = back.try_clone()?;
        thread::scope(|scope| {
            let piece = &piece;
            let sender = scope.spawn(move || {
                for _ in 0..repeats {
                    out.write_all(piece)?;
                }
                out.shutdown(Shutdown::Write)
            });
            let mut got = vec![0; LEN];
            for _ in 0..repeats {
                back.read_exact(&mut got)?;
                assert!(got == *piece, "bytes changed on the way");
            }
            assert_eq!(back.read(&mut got)?, 0, "more came than was sent");
            sender.join().expect("the sender panicked")
        })
    });
    let output = start(format!(
        "set -e
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
{more}
ping -c 2 -W 5 10.9.0.1
ping -c 2 -s 1400 -W 5 10.9.0.1
nc 10.9.0.1 7000 -e cat
"
    ));
    assert_eq!(output.matches(" 0% packet loss").count(), 2, "{output}");
    partner.join().unwrap().unwrap();
}

/// 1 GiB and a little, in pieces of 24 MiB.
const GIBIBYTE: usize = 43;

/// QEMU 7.2 without KVM crashes when a guest starts vhost-user-net with MSI-X: it uses KVM's irqfds
/// although there are none.
const WITHOUT_MSIX: [&str; 2] = ["-global", "virtio-net-pci.vectors=0"];

/// A QEMU guest on a daemon with so many queue pairs, as many processors, and a tap of that MTU.
struct Qemu {
    pairs: u16,
    mtu: Option<u16>,
    offloads: bool,
    repeats: usize,
}

impl Qemu {
    /// Lets the guest send everything back; gives the daemon's log.
    fn echoes(self, test: &str) -> String {
        let host = Host::start(test, &self.pairs.to_string(), self.mtu);
        let socket = host.scratch.join("net.sock");
        let off = ["csum", "guest_csum", "mrg_rxbuf", "gso"];
        let off = off.map(|feature| format!("virtio-net-pci.{feature}=off"));
        let off = off.iter().filter(|_| !self.offloads);
        let off = off.flat_map(|it| ["-global", it.as_str()]);
        let options: Vec<&str> = WITHOUT_MSIX.into_iter().chain(off).collect();
        let mut more = match self.mtu {
            Some(mtu) => format!("ip link set eth0 mtu {mtu}\n"),
            None => String::new(),
        };
        if self.pairs > 1 {
            more += "test -d /sys/class/net/eth0/queues/rx-1";
        }
        echo(&host, self.repeats, &more, |script| {
            let guest = QemuGuest::new(script)
                .cpus(self.pairs)
                .options(options)
                .limit(Duration::from_secs(240))
                .net(VhostUser::new(&socket).queues(self.pairs));
            guest.run().unwrap().success().unwrap()
        });
        let stderr = host.daemon.stderr();
        host.check();
        let none = stderr.contains("receive_offloads=none");
        assert_eq!(none, !self.offloads, "{stderr}");
        stderr
    }
}

#[test]
fn a_qemu_guest_echoes_a_gibibyte() {
    let guest = Qemu {
        pairs: 1,
        mtu: None,
        offloads: true,
        repeats: GIBIBYTE,
    };
    guest.echoes("net-qemu");
}

#[test]
fn a_qemu_guest_of_two_pairs_echoes_a_gibibyte_at_a_large_mtu() {
    let guest = Qemu {
        pairs: 2,
        mtu: Some(9000),
        offloads: true,
        repeats: GIBIBYTE,
    };
    let log = guest.echoes("net-qemu-mq");
    assert!(log.contains("multi_queue=true"), "{log}");
}

#[test]
fn a_qemu_guest_without_offloads_echoes_a_gibibyte_at_a_large_mtu() {
    let guest = Qemu {
        pairs: 1,
        mtu: Some(9000),
        offloads: false,
        repeats: GIBIBYTE,
    };
    guest.echoes("net-qemu-plain");
}

/// The emulated processor takes a minute or two for a GiB in frames of 1500 bytes: it is less here.
#[test]
fn a_qemu_guest_of_two_pairs_without_offloads() {
    let guest = Qemu {
        pairs: 2,
        mtu: None,
        offloads: false,
        repeats: 8,
    };
    guest.echoes("net-qemu-mq-plain");
}

fn uml(script: String) -> UmlGuest {
    UmlGuest::new(script).limit(Duration::from_secs(120))
}

#[test]
fn a_uml_guest_transfers_a_gibibyte_both_ways() {
    let host = Host::start("net-uml", "1", None);
    let socket = host.scratch.join("net.sock");
    transfer(&host, GIBIBYTE, || {
        let guest = uml(script("", GIBIBYTE)).net(&socket);
        guest.run().unwrap().success().unwrap()
    });
    host.check();
}

#[test]
fn a_uml_guest_of_two_pairs_transfers_a_gibibyte_at_a_large_mtu() {
    let host = Host::start("net-uml-mq", "2", Some(9000));
    let socket = host.scratch.join("net.sock");
    let more = "busybox ip link set eth0 mtu 9000";
    transfer(&host, GIBIBYTE, || {
        let guest = uml(script(more, GIBIBYTE)).net(&socket);
        guest.run().unwrap().success().unwrap()
    });
    host.check();
}

#[test]
fn two_uml_guests_on_one_switch_transfer_a_gibibyte() {
    let scratch = Scratch::new("net-uml-switch").unwrap();
    let sockets = ["a.sock", "b.sock"].map(|name| scratch.join(name));
    let port = |path: &Path| format!("--port=socket={},mtu=9000", path.display());
    let mut daemon = Daemon::builder(PROGRAM)
        .arg("--switch")
        .args(sockets.each_ref().map(|path| port(path)))
        .spawn()
        .unwrap();
    for socket in &sockets {
        daemon.wait_listening(socket, SOON).unwrap();
    }
    let send = format!(
        r#"
set -e
busybox ip addr add 10.9.0.3/24 dev eth0
busybox ip link set eth0 up
head -c 25165824 /dev/urandom >/run/piece
all() {{ i=0; while [ $i -lt {GIBIBYTE} ]; do cat /run/piece; i=$((i+1)); done; }}
echo "sum $(all | sha256sum)"
until busybox ping -c 1 -W 1 10.9.0.2; do :; done
sleep 1
all | socat -u -b 262144 - TCP:10.9.0.2:7000
"#
    );
    let receive = "set -e
busybox ip addr add 10.9.0.2/24 dev eth0
busybox ip link set eth0 up
echo \"sum $(socat -u -b 262144 TCP-LISTEN:7000 - | sha256sum)\"";
    let [first, second] = thread::scope(|scope| {
        let run = |script: String, socket: PathBuf| {
            let guest = uml(script).net(&socket);
            scope.spawn(move || guest.run().unwrap().success().unwrap())
        };
        let [a, b] = sockets.clone();
        let guests = [run(receive.to_owned(), a), run(send.clone(), b)];
        guests.map(|guest| guest.join().unwrap())
    });
    let sum = |output: &str| {
        let line = output.lines().find(|line| line.starts_with("sum "));
        line.unwrap_or_else(|| panic!("no sum in:\n{output}"))
            .trim()
            .to_owned()
    };
    assert_eq!(sum(&first), sum(&second));
    let stderr = daemon.stderr();
    assert!(
        !stderr.contains("ERROR") && !stderr.contains("broke a rule"),
        "{stderr}"
    );
}

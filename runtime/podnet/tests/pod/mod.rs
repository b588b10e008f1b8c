//! A node with a bridge, a pod's namespace beside it, and guests with a network stack of their own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::frontend::net::{Header, Receive, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::netns::NetNamespace;
use lab::process::{Daemon, binary};
use lab::scratch::Scratch;
use ringside_podnet::{Network, PodNamespace, Wired};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub const SOON: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);
/// `struct virtio_net_hdr` without `num_buffers`, as on a tap that nobody told otherwise.
const HEADER_LEN: usize = 10;

/// A node and a pod's network namespace.
pub struct Pod {
    pub node: NetNamespace,
    pub pod: NetNamespace,
}

impl Pod {
    /// Without any interface.
    pub fn empty() -> Self {
        Self {
            node: NetNamespace::new().unwrap(),
            pod: NetNamespace::new().unwrap(),
        }
    }

    /// As CNI's bridge plugin leaves it, for both families.
    pub fn bridged() -> Self {
        let pod = Self::empty();
        pod.on_node(&[
            "link add cni0 type bridge mcast_snooping 0",
            "addr add 10.88.0.1/16 dev cni0",
            "addr add fd00:88::1/64 dev cni0 nodad",
            "link set cni0 up",
        ]);
        pod.add_veth("veth0", "eth0", "0a:58:0a:58:00:05");
        pod.on_node(&["link set veth0 master cni0"]);
        pod.in_pod(&[
            "addr add 10.88.0.5/16 dev eth0",
            "addr add fd00:88::5/64 dev eth0 nodad",
            "route add default via 10.88.0.1",
            "route add 192.0.2.0/24 via 169.254.1.1 dev eth0 onlink metric 50",
            "-6 route add default via fd00:88::1 dev eth0",
            "neigh add 169.254.1.1 lladdr 0a:58:0a:58:00:01 dev eth0 nud permanent",
        ]);
        pod
    }

    /// A veth with one end on the node and the other in the pod.
    pub fn add_veth(&self, on_node: &str, in_pod: &str, mac: &str) {
        let add = format!("link add {on_node} type veth peer name {in_pod} address {mac}");
        self.on_node(&[&add]);
        self.move_in(in_pod);
        self.on_node(&[&format!("link set {on_node} up")]);
        self.in_pod(&[&format!("link set {in_pod} up")]);
    }

    /// Moves an interface of the node to the pod.
    pub fn move_in(&self, interface: &str) {
        let path = self.path();
        self.on_node(&[&format!("link set {interface} netns {}", path.display())]);
    }

    pub fn on_node(&self, orders: &[&str]) {
        for order in orders {
            self.node.ip(order).unwrap();
        }
    }

    pub fn in_pod(&self, orders: &[&str]) {
        for order in orders {
            self.pod.ip(order).unwrap();
        }
    }

    /// The namespace's file.
    pub fn path(&self) -> PathBuf {
        let fd = self.pod.as_fd().as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id()).into()
    }

    pub fn open(&self) -> PodNamespace {
        PodNamespace::open(&self.path()).unwrap()
    }

    /// The names of the pod's interfaces.
    pub fn interfaces(&self) -> Vec<String> {
        let list = self.pod.ip("-br link").unwrap();
        let first = |line: &str| line.split([' ', '@']).next().unwrap().to_owned();
        let mut names: Vec<_> = list.lines().map(first).collect();
        names.sort();
        names
    }

    /// Whether an address answers the node at once, and once, not twice.
    pub fn answers(&self, address: &str) -> bool {
        let ping = lab::need::program("ping").unwrap();
        let mut command = Command::new(ping);
        command.args(["-c", "3", "-i", "0.02", "-W", "0.3", "-w", "1", address]);
        let output = self.node.run(|| command.output()).unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("DUP!"), "two answer: {said}");
        said.contains("3 received")
    }

    /// Fails unless an address answers soon: the machine may be busy, and a bridge hears of a carrier
    /// late.
    pub fn assert_answers(&self, address: &str) {
        let deadline = Instant::now() + SOON;
        while !self.answers(address) {
            assert!(Instant::now() < deadline, "{address} does not answer");
        }
    }
}

/// A guest: a network stack (that of a third namespace) behind a virtio-net driver, for one interface.
pub struct Guest {
    pub stack: NetNamespace,
    /// Frames that came in more than one segment.
    pub large: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    daemon: Daemon,
    _front_end: FrontEnd,
    _scratch: Scratch,
}

impl Guest {
    /// Starts vhost-user-net on the tap, and a guest that does what `network` says of the interface.
    pub fn start(namespace: &PodNamespace, wired: &Wired, network: &Network) -> Self {
        let scratch = Scratch::new("podnet").unwrap();
        let socket = scratch.join("net.sock");
        let mut daemon = Daemon::builder(program())
            .args(["--tap", &wired.tap, "--netns"])
            .arg(namespace.path())
            .args(["--mac", &wired.interface.mac.to_string(), "--socket-path"])
            .arg(&socket)
            .spawn()
            .unwrap();
        daemon.wait_stderr("waiting for a front end", SOON).unwrap();
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = FrontEnd::connect(&socket, SOON).unwrap();
        let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::MQ;
        front_end.handshake(u64::MAX, protocol).unwrap();
        front_end.set_mem_table(&memory).unwrap();
        let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), 4096);
        receive.post(128).unwrap();
        let transmit = Transmit::new(front_end.set_up_queue(1, 256).unwrap());

        let stack = NetNamespace::new().unwrap();
        let tap = stack.open_tap(&wired.interface.name, false).unwrap();
        let tap = File::from(tap);
        configure(&stack, &wired.interface.name, network);
        let stop = Arc::new(AtomicBool::new(false));
        let large = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&large);
        let (stop_in, stop_out) = (Arc::clone(&stop), Arc::clone(&stop));
        let tap_in = tap.try_clone().unwrap();
        let threads = vec![
            thread::spawn(move || to_stack(receive, tap_in, &stop_in, &counter)),
            thread::spawn(move || from_stack(transmit, tap, &stop_out)),
        ];
        Self {
            stack,
            large,
            stop,
            threads,
            daemon,
            _front_end: front_end,
            _scratch: scratch,
        }
    }

    /// Kills the daemon.
    pub fn kill_daemon(&mut self) {
        self.daemon.kill().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the guest broke down");
        }
    }
}

/// What an agent does with what it is told.
fn configure(stack: &NetNamespace, name: &str, network: &Network) {
    let interface = network.interfaces.iter().find(|i| i.name == name).unwrap();
    let ip = |order: String| stack.ip(&order).map(drop).unwrap();
    ip(format!(
        "link set {name} address {} mtu {}",
        interface.mac, interface.mtu
    ));
    ip(format!("link set {name} up"));
    for address in &interface.addresses {
        let no_dad = if address.address.is_ipv6() {
            "nodad"
        } else {
            ""
        };
        ip(format!("addr add {address} dev {name} {no_dad}"));
    }
    for route in network
        .routes
        .iter()
        .filter(|route| route.interface == name)
    {
        let family = if route.ipv6 { "-6" } else { "-4" };
        let to = route
            .destination
            .map_or("default".to_owned(), |to| to.to_string());
        let via = route
            .gateway
            .map_or(String::new(), |via| format!("via {via}"));
        let on_link = if route.on_link { "onlink" } else { "" };
        let metric = match route.metric {
            0 => String::new(),
            metric => format!("metric {metric}"),
        };
        ip(format!(
            "{family} route add {to} {via} dev {name} {on_link} {metric}"
        ));
    }
    for neighbour in network.neighbours.iter().filter(|n| n.interface == name) {
        ip(format!(
            "neigh add {} lladdr {} dev {name} nud permanent",
            neighbour.address, neighbour.mac
        ));
    }
}

fn to_stack(mut receive: Receive, mut tap: File, stop: &AtomicBool, large: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(frames) = receive.receive(TICK) else {
            return; // The daemon was killed.
        };
        for received in frames {
            if received.header.gso_type != 0 {
                large.fetch_add(1, Ordering::Relaxed);
            }
            let header = &received.header.to_bytes()[..HEADER_LEN];
            let frame = [header, &received.frame].concat();
            assert_eq!(tap.write(&frame).unwrap(), frame.len());
        }
    }
}

fn from_stack(mut transmit: Transmit, mut tap: File, stop: &AtomicBool) {
    let limit = Timespec::try_from(TICK).unwrap();
    let mut bytes = vec![0; 70_000];
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(&tap, PollFlags::IN)];
        if poll(&mut waiting, Some(&limit)).unwrap() == 0 {
            continue;
        }
        let len = tap.read(&mut bytes).unwrap();
        // A tap finishes checksums and segments for a reader that did not ask for them unfinished.
        let (header, frame) = bytes[..len].split_at(HEADER_LEN);
        assert_eq!(header[..2], [0, 0]);
        if transmit.send(Header::default(), frame).is_err() {
            return; // The daemon was killed.
        }
    }
}

/// The daemon, as the workspace's tests build it.
fn program() -> PathBuf {
    binary("vhost-user-net").unwrap()
}

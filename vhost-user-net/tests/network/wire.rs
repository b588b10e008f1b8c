//! The test's own end of the network.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use lab::frontend::net::Header;
use lab::netns::NetNamespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{SOON, packet};

const WIRE: &str = "net-wire";
/// A tap's header without `num_buffers`, which lab's taps have.
const HEADER_LEN: usize = 10;

/// A tap that is bridged with the daemon's.
pub struct Wire {
    tap: File,
}

impl Wire {
    pub fn new(namespace: &NetNamespace, peer: &str, mtu: u16) -> Self {
        let tap = File::from(namespace.open_tap(WIRE, false).unwrap());
        for arguments in [
            "link add net-bridge type bridge",
            "link set net-bridge addrgenmode none",
            "link set net-bridge type bridge mcast_snooping 0",
            &format!("link set {WIRE} addrgenmode none"),
            &format!("link set {WIRE} mtu {mtu}"),
            &format!("link set {WIRE} master net-bridge"),
            &format!("link set {peer} master net-bridge"),
            &format!("link set {WIRE} up"),
            "link set net-bridge up",
        ] {
            namespace.ip(arguments).unwrap();
        }
        wait_forwarding(namespace, WIRE);
        Self { tap }
    }

    pub fn send(&mut self, header: Header, frame: &[u8]) {
        let bytes = [&header.to_bytes()[..HEADER_LEN], frame].concat();
        assert_eq!(self.tap.write(&bytes).unwrap(), bytes.len());
    }

    /// The next frame within `timeout`.
    pub fn receive(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let limit = Timespec::try_from(timeout).unwrap();
        let mut waiting = [PollFd::new(&self.tap, PollFlags::IN)];
        if poll(&mut waiting, Some(&limit)).unwrap() == 0 {
            return None;
        }
        let mut bytes = vec![0; 70_000];
        let len = self.tap.read(&mut bytes).unwrap();
        bytes.truncate(len);
        Some(bytes.split_off(HEADER_LEN))
    }

    /// The next frame that `wanted` finds something in.
    pub fn find<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.receive(left).expect("no such frame on the wire");
            if let Some(found) = wanted(&frame) {
                return found;
            }
        }
    }

    /// The payload of the next UDP packet to `port`, its checksum verified.
    pub fn receive_udp(&mut self, port: u16) -> Vec<u8> {
        self.find(|frame| {
            (packet::udp_port(frame) == Some(port)).then(|| {
                assert!(packet::checksum_holds(frame), "wrong checksum");
                packet::udp_payload(frame).to_vec()
            })
        })
    }
}

/// A new carrier reaches the bridge with a delay.
pub fn wait_forwarding(namespace: &NetNamespace, port: &str) {
    let deadline = Instant::now() + SOON;
    let show = format!("-d link show {port}");
    while !namespace.ip(&show).unwrap().contains("state forwarding") {
        assert!(Instant::now() < deadline, "{port} does not forward");
        std::thread::sleep(Duration::from_millis(5));
    }
}

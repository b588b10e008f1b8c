//! Packets between the node and a guest, through everything that is between them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod pod;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;

use lab::netns::NetNamespace;
use pod::{Guest, Pod};

/// 2 MiB without a period that a lost or doubled segment could hide in.
fn payload() -> Vec<u8> {
    (0..1_u32 << 19)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// A connection over which the client gets the payload and sends it back.
fn exchange(server: &NetNamespace, client: &NetNamespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let sent = payload();
    let serve = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(back == sent, "what came back is not what was sent");
    };
    thread::scope(|scope| {
        let server = scope.spawn(serve);
        let mut stream = client.run(|| TcpStream::connect(address)).unwrap().unwrap();
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
        server.join().unwrap();
    });
}

#[test]
fn a_guest_is_where_the_pod_was() {
    let pod = Pod::bridged();
    pod.add_veth("veth1", "net1", "0a:58:0a:63:00:02");
    pod.on_node(&["addr add 10.99.0.1/24 dev veth1", "link set veth1 mtu 9000"]);
    pod.in_pod(&["addr add 10.99.0.2/24 dev net1", "link set net1 mtu 9000"]);
    pod.assert_answers("10.88.0.5");

    let namespace = pod.open();
    let wiring = namespace.wire(1).unwrap();
    assert!(
        !pod.answers("10.88.0.5"),
        "the pod's own stack still answers"
    );
    assert!(
        !pod.answers("fd00:88::5"),
        "the pod's own stack still answers"
    );
    let [first, second] = wiring.wired() else {
        panic!("two interfaces: {wiring:?}");
    };
    let mut guest = Guest::start(&namespace, first, wiring.network());
    let other = Guest::start(&namespace, second, wiring.network());
    for address in ["10.88.0.5", "fd00:88::5", "10.99.0.2"] {
        pod.assert_answers(address);
    }
    exchange(&guest.stack, &pod.node, "10.88.0.5:8080");
    exchange(&guest.stack, &pod.node, "[fd00:88::5]:8080");
    exchange(&pod.node, &guest.stack, "10.88.0.1:8080");
    let large = guest.large.load(Ordering::Relaxed);
    assert!(large > 0, "the node's segments do not come in one piece");
    exchange(&pod.node, &other.stack, "10.99.0.1:8080");

    // A daemon's end leaves the wiring, for the next one.
    guest.kill_daemon();
    drop(guest);
    let guest = Guest::start(&namespace, first, wiring.network());
    pod.assert_answers("10.88.0.5");

    drop((guest, other));
    drop(wiring);
    assert_eq!(pod.interfaces(), ["eth0", "lo", "net1"]);
    pod.assert_answers("10.88.0.5");
    pod.assert_answers("10.99.0.2");
}

#[test]
fn macvlan_is_wired_too() {
    let pod = Pod::empty();
    pod.on_node(&[
        "link add wire type veth peer name uplink",
        "addr add 10.77.0.1/24 dev wire",
        "addr add fd00:77::1/64 dev wire nodad",
        "link set wire up",
        "link set uplink up",
        "link add link uplink name mac0 type macvlan mode bridge",
    ]);
    pod.move_in("mac0");
    pod.in_pod(&[
        "link set mac0 name eth0",
        "addr add 10.77.0.2/24 dev eth0",
        "addr add fd00:77::2/64 dev eth0 nodad",
        "link set eth0 up",
    ]);
    let namespace = pod.open();
    let wiring = namespace.wire(1).unwrap();
    let guest = Guest::start(&namespace, &wiring.wired()[0], wiring.network());
    pod.assert_answers("10.77.0.2");
    // Its neighbour solicitations go to a group.
    pod.assert_answers("fd00:77::2");
    exchange(&guest.stack, &pod.node, "10.77.0.2:8080");
}

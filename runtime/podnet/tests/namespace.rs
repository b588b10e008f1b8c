//! What is read, what is refused, what is left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod pod;

use std::path::Path;
use std::process::Command;

use pod::Pod;
use ringside_podnet::{Error, PodNamespace};

#[test]
fn what_cni_made_is_read() {
    let pod = Pod::bridged();
    pod.in_pod(&[
        "link add quiet type veth peer name quieter",
        "route add 198.51.100.0/24 dev eth0 src 10.88.0.5",
        "route add 203.0.113.0/24 via 10.88.0.1 table 100",
        "route add blackhole 203.0.113.0/24",
    ]);
    let network = pod.open().network().unwrap();
    let [eth0] = &network.interfaces[..] else {
        panic!("one interface is up: {network:?}");
    };
    assert_eq!(
        (eth0.name.as_str(), eth0.mtu, eth0.mac.to_string()),
        ("eth0", 1500, "0a:58:0a:58:00:05".to_owned())
    );
    let addresses: Vec<_> = eth0.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.88.0.5/16", "fd00:88::5/64"]);
    let routes = network.routes.iter().map(|route| {
        let to = route
            .destination
            .map_or("default".to_owned(), |to| to.to_string());
        let via = route
            .gateway
            .map_or("link".to_owned(), |via| via.to_string());
        let source = route
            .source
            .map_or(String::new(), |source| format!(" src {source}"));
        let on_link = if route.on_link { " onlink" } else { "" };
        format!(
            "{to} {via}{source} metric {} scope {}{on_link}",
            route.metric, route.scope
        )
    });
    let mut routes: Vec<_> = routes.collect();
    assert_eq!(
        routes[0],
        "198.51.100.0/24 link src 10.88.0.5 metric 0 scope 253"
    );
    routes.sort();
    assert_eq!(
        routes[1..],
        [
            "198.51.100.0/24 link src 10.88.0.5 metric 0 scope 253".to_owned(),
            "default 10.88.0.1 metric 0 scope 0".to_owned(),
            "default fd00:88::1 metric 1024 scope 0".to_owned(),
        ]
    );
    assert_eq!(
        routes[0],
        "192.0.2.0/24 169.254.1.1 metric 50 scope 0 onlink"
    );
    let [neighbour] = &network.neighbours[..] else {
        panic!("one neighbour is static: {network:?}");
    };
    assert_eq!(
        (neighbour.address.to_string(), neighbour.mac.to_string()),
        ("169.254.1.1".to_owned(), "0a:58:0a:58:00:01".to_owned())
    );
}

#[test]
fn namespaces_that_are_none_of_a_pod_are_refused() {
    let refused = |path: &str| PodNamespace::open(path.as_ref()).unwrap_err();
    assert!(matches!(
        refused("/proc/self/ns/net"),
        Error::HostNetwork(_)
    ));
    let message = refused("/proc/thread-self/ns/net").to_string();
    assert!(
        message.contains("/proc/thread-self/ns/net is the host's own"),
        "{message}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    assert!(matches!(refused(path), Error::NotANamespace(_)));
    assert!(matches!(refused("/run/netns/no-such"), Error::Open { .. }));
    let other = PodNamespace::open(Path::new("/proc/self/ns/uts")).unwrap();
    assert!(matches!(other.network().unwrap_err(), Error::Enter { .. }));
}

#[test]
fn interfaces_that_a_guest_cannot_have_are_refused() {
    let refusal = |orders: &[&str]| {
        let pod = Pod::bridged();
        pod.in_pod(orders);
        let before = pod.interfaces();
        let error = pod.open().wire(1).unwrap_err();
        assert_eq!(pod.interfaces(), before);
        error.to_string()
    };
    let tunnel = refusal(&["tuntap add tun0 mode tun", "link set tun0 up"]);
    assert_eq!(
        tunnel,
        "the guest cannot have interface tun0: it carries no Ethernet frames"
    );
    let port = refusal(&["link add br0 type bridge", "link set eth0 master br0"]);
    assert!(port.contains("eth0: it is a port of a bridge"), "{port}");
    let quiet = refusal(&["link set eth0 arp off"]);
    assert!(quiet.contains("eth0: it does no ARP"), "{quiet}");
    let several = refusal(&[
        "addr add 10.88.0.6/16 dev eth0",
        "route add 203.0.113.0/24 nexthop via 10.88.0.2 nexthop via 10.88.0.3",
    ]);
    assert!(
        several.contains("203.0.113.0/24: it has several next hops"),
        "{several}"
    );
}

#[test]
fn somebody_elses_redirection_is_left_alone() {
    let pod = Pod::bridged();
    let tc = lab::need::program("tc").unwrap();
    let run = |arguments: &str| {
        let mut command = Command::new(&tc);
        command.args(arguments.split(' '));
        let output = pod.pod.run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run("qdisc add dev eth0 ingress");
    let error = pod.open().wire(1).unwrap_err();
    assert!(
        matches!(error, Error::Redirected(ref name) if name == "eth0"),
        "{error}"
    );
    assert_eq!(pod.interfaces(), ["eth0", "lo"]);
    assert!(run("qdisc show dev eth0").contains("ingress"));
}

#[test]
fn what_a_killed_process_left_is_taken_away() {
    let pod = Pod::bridged();
    let namespace = pod.open();
    namespace.wire(4).unwrap().keep();
    assert_eq!(pod.interfaces().len(), 3);
    // The next one begins afresh.
    let wiring = namespace.wire(1).unwrap();
    assert_eq!(pod.interfaces().len(), 3);
    wiring.keep();
    namespace.remove().unwrap();
    namespace.remove().unwrap();
    assert_eq!(pod.interfaces(), ["eth0", "lo"]);
    pod.assert_answers("10.88.0.5");
    // CNI was there first.
    namespace.wire(1).unwrap().keep();
    pod.in_pod(&["link delete eth0"]);
    namespace.remove().unwrap();
    assert_eq!(pod.interfaces(), ["lo"]);
}

#[test]
fn a_namespace_serves_one_guest() {
    let pod = Pod::bridged();
    let namespace = pod.open();
    let wiring = namespace.wire(2).unwrap();
    let tap = &wiring.wired()[0].tap;
    let queues = [(); 2].map(|()| pod.pod.open_tap(tap, true).unwrap());
    let error = namespace.wire(2).unwrap_err();
    assert!(
        matches!(error, Error::InUse { ref interface, .. } if interface == "eth0"),
        "{error}"
    );
    drop(queues);
    namespace.wire(2).unwrap();
}

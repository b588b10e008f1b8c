//! The pod's interface, as the host describes it.

use ringside_protocol::agent::{Interface, Neighbour, NetworkConfig, Route, StartSandboxRequest};

use crate::guest::MAC;
use crate::pod::{Pod, patient};
use crate::spec::container;

pub(crate) fn sandbox(request: &mut StartSandboxRequest) {
    let mut interface = Interface::new();
    interface.mac = MAC.to_owned();
    interface.name = "pod0".to_owned();
    interface.mtu = 1400;
    interface.addresses = vec!["10.1.2.3/24".to_owned(), "fd00::3/64".to_owned()];
    let route = |destination: &str, gateway: &str| {
        let mut route = Route::new();
        route.destination = destination.to_owned();
        route.gateway = gateway.to_owned();
        route.interface = "pod0".to_owned();
        route
    };
    let mut far = route("default", "192.168.9.1");
    far.on_link = true;
    far.metric = 7;
    let routes = vec![
        route("default", "10.1.2.1"),
        far,
        route("fd01::/64", "fd00::1"),
        route("10.7.0.0/16", "10.1.2.9"),
    ];
    let mut neighbour = Neighbour::new();
    neighbour.interface = "pod0".to_owned();
    neighbour.address = "10.1.2.1".to_owned();
    neighbour.mac = "02:00:00:00:00:01".to_owned();
    let mut config = NetworkConfig::new();
    config.interfaces = vec![interface];
    config.routes = routes;
    config.neighbours = vec![neighbour];
    request.network = Some(config).into();
    // There is such an interface when the network is.
    request
        .sysctls
        .insert("net.ipv4.conf.pod0.arp_ignore".to_owned(), "2".to_owned());
}

pub(crate) fn configured(pod: &mut Pod) {
    // Twice is as good as once.
    let mut again = StartSandboxRequest::new();
    sandbox(&mut again);
    pod.guest
        .agent
        .configure_network(patient(), &again.network)
        .unwrap();
    let output = pod.container(
        "network",
        &container("ip addr show pod0; ip route; ip -6 route; ip neigh; ip addr show lo; grep -H . /proc/sys/net/ipv4/conf/pod0/arp_ignore"),
    );
    for expected in [
        "mtu 1400",
        "inet 10.1.2.3/24",
        "inet6 fd00::3/64",
        "default via 10.1.2.1 dev pod0",
        "default via 192.168.9.1 dev pod0",
        "metric 7",
        "fd01::/64 via fd00::1 dev pod0",
        "10.7.0.0/16 via 10.1.2.9",
        "10.1.2.1 dev pod0 lladdr 02:00:00:00:00:01",
        "inet 127.0.0.1/8",
        "arp_ignore:2",
    ] {
        assert!(output.stdout.contains(expected), "{expected}: {output:?}");
    }
}

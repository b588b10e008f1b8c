//! A pod's network, as it is there before the pod.

use std::process::Command;

/// A network namespace with an interface, as CNI's bridge plugin would leave it. Its other end has one of its own:
/// the host's addresses are nobody's business here.
pub(crate) struct Net(pub(crate) String);

impl Net {
    pub(crate) fn new() -> Self {
        let net = Self(format!("rs-shim-{}", std::process::id()));
        let [name, outside] = net.namespaces();
        for line in [
            format!("netns add {name}"),
            format!("netns add {outside}"),
            format!("-n {name} link set lo up"),
            format!("link add eth0 netns {name} type veth peer name bridge netns {outside}"),
            format!("-n {outside} addr add 10.77.0.1/24 dev bridge"),
            format!("-n {outside} link set bridge up"),
            format!("-n {name} addr add 10.77.0.2/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via 10.77.0.1"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(done.success(), "ip {line}");
        }
        net
    }

    fn namespaces(&self) -> [String; 2] {
        [self.0.clone(), format!("{}-outside", self.0)]
    }

    pub(crate) fn inside(&self, arguments: &[&str]) -> String {
        let shown = Command::new("ip")
            .args(["-n", &self.0])
            .args(arguments)
            .output();
        String::from_utf8_lossy(&shown.unwrap().stdout).into_owned()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
        }
    }
}

//! The network that all contestants' taps are in.

use std::os::fd::OwnedFd;

use lab::netns::{NetNamespace, Tap};

use super::error::Error;
use super::frame::{GUEST_MAC, TAP_MAC, address};
use crate::sys::packet_socket::{Generator, prepare_tap};

/// A network namespace without a way out. It goes with the value and the last daemon in it.
#[derive(Debug)]
pub(super) struct Ground {
    namespace: NetNamespace,
}

impl Ground {
    pub(super) fn new() -> Result<Self, Error> {
        let namespace = NetNamespace::new()?;
        Ok(Self { namespace })
    }

    /// Makes tap number `number`: its network, and the guest as a neighbour.
    pub(super) fn add_tap(&self, number: u8) -> Result<String, Error> {
        let name = format!("perf{number}");
        let ([a, b, c, tap], [.., guest]) = (address(number, false), address(number, true));
        let own = format!("{a}.{b}.{c}.{tap}/30");
        self.namespace.add_tap(
            &name,
            &Tap {
                address: Some(&own),
                ..Tap::default()
            },
        )?;
        let (mac, guest_mac) = (text(TAP_MAC), text(GUEST_MAC));
        self.namespace
            .ip(&format!("link set {name} address {mac}"))?;
        self.namespace.ip(&format!(
            "neigh replace {a}.{b}.{c}.{guest} lladdr {guest_mac} dev {name}"
        ))?;
        Ok(name)
    }

    /// Joins taps that exist by a bridge: the way between two guests without a switch of ours.
    pub(super) fn bridge(&self, taps: [&str; 2]) -> Result<(), Error> {
        let bridge = format!("{}-br", taps[0]);
        let namespace = &self.namespace;
        namespace.ip(&format!("link add {bridge} type bridge mcast_snooping 0"))?;
        namespace.ip(&format!("link set {bridge} addrgenmode none up"))?;
        for tap in taps {
            namespace.ip(&format!("addr flush dev {tap}"))?;
            namespace.ip(&format!("link set {tap} master {bridge}"))?;
        }
        Ok(())
    }

    /// Does `work` inside.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        Ok(self.namespace.run(work)?)
    }

    /// A sender of frames from the network to the guest.
    pub(super) fn generator(&self, tap: &str, frame: &[u8]) -> Result<Generator, Error> {
        self.run(|| Generator::open(tap, frame))?
            .map_err(Error::Generator)
    }

    /// The tap itself, with headers of 12 bytes and frames of any size.
    pub(super) fn open_tap(&self, name: &str) -> Result<OwnedFd, Error> {
        let tap = self.namespace.open_tap(name, false)?;
        prepare_tap(&tap).map_err(Error::Generator)?;
        Ok(tap)
    }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

//! What a guest is told about its network: the shapes of `Interface`, `Route` and `Neighbour` in
//! `runtime/protocol/proto/agent.proto`.

use std::fmt;
use std::net::IpAddr;

/// A pod's network, as the guest shall have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its interfaces, in the order of their indices.
    pub interfaces: Vec<Interface>,
    /// Its routes, those on the link before those that need them.
    pub routes: Vec<Route>,
    /// Its static neighbours.
    pub neighbours: Vec<Neighbour>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What CNI called it.
    pub name: String,
    /// Its number in the pod's namespace.
    pub index: u32,
    /// Its address on the link, which becomes the guest's.
    pub mac: Mac,
    /// Its largest packet, in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; everywhere if `None`.
    pub destination: Option<Prefix>,
    /// The next hop; on the link if `None`. It may be of the other family (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The interface's name.
    pub interface: String,
    /// The address to send from, if not the kernel's choice.
    pub source: Option<IpAddr>,
    /// `RT_SCOPE_*` (rtnetlink(7)).
    pub scope: u8,
    /// Lower is better; 0 for the kernel's choice.
    pub metric: u32,
    /// The gateway needs no route of its own (`RTNH_F_ONLINK`).
    pub on_link: bool,
    /// Of the destination: the default route of which family it is.
    pub ipv6: bool,
}

/// An entry of the ARP or neighbour table that does not expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's name.
    pub interface: String,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its address on the link.
    pub mac: Mac,
}

/// An address and the length of its network's prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Bits.
    pub length: u8,
}

impl Prefix {
    /// The network that the address is in, its host bits zero.
    #[must_use]
    pub fn network(self) -> Self {
        let length = u32::from(self.length);
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length));
                IpAddr::V4((v4.to_bits() & mask.unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length));
                IpAddr::V6((v6.to_bits() & mask.unwrap_or(0)).into())
            }
        };
        Self { address, ..self }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An Ethernet address. Prints as `0a:58:0a:58:00:05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The link-local address that IPv6 makes of it (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let bytes = [
            0xfe,
            0x80,
            0,
            0,
            0,
            0,
            0,
            0,
            a ^ 2,
            b,
            c,
            0xff,
            0xfe,
            d,
            e,
            f,
        ];
        bytes.into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_no_host_bits() {
        for (address, length, network) in [
            ("10.88.3.5", 16, "10.88.0.0/16"),
            ("10.88.3.5", 32, "10.88.3.5/32"),
            ("10.88.3.5", 0, "0.0.0.0/0"),
            ("fd00::1:2", 64, "fd00::/64"),
            ("fd00::1:2", 128, "fd00::1:2/128"),
        ] {
            let prefix = Prefix {
                address: address.parse().unwrap(),
                length,
            };
            assert_eq!(prefix.network().to_string(), network);
        }
    }

    #[test]
    fn a_mac_makes_its_link_local_address() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(mac.to_string(), "52:54:00:12:34:56");
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }
}

//! Interfaces, addresses, routes and neighbours, IPv4 and IPv6, by rtnetlink(7).
//!
//! Each request is sent alone and its acknowledgement awaited. What is there already in the same form is no
//! error, so a configuration can be set twice.

mod message;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use self::message::{Message, acknowledgement, family};

/// Message types, rtnetlink(7) and linux/rtnetlink.h.
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;

/// Flags that make what is there be replaced, and what is not be made (netlink(7)).
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

/// Attributes: linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// No duplicate detection: the host gave the address to this guest alone (linux/if_addr.h).
const IFA_F_NODAD: u32 = 2;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const IFF_UP: u32 = 1;

/// An address and the length of its network's prefix, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// At most 32 or 128.
    pub length: u8,
}

impl Prefix {
    /// Reads `10.0.0.1/24` or `fd00::1/64`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length = length.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (length <= longest).then_some(Self { address, length })
    }
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to; `None` for everything of the gateway's family.
    pub destination: Option<Prefix>,
    /// `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// The interface's index.
    pub interface: u32,
    /// The address to send from; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
    /// `RT_SCOPE_*`, rtnetlink(7).
    pub scope: u8,
    /// 0: the kernel's choice.
    pub metric: u32,
    /// The gateway needs no route of its own.
    pub on_link: bool,
}

/// A socket to the kernel's routing tables, in the network namespace of whoever opened it.
#[derive(Debug)]
pub struct Routing {
    socket: OwnedFd,
    sequence: u32,
}

impl Routing {
    /// Opens a socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        // Without a protocol it is the first, NETLINK_ROUTE.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Renames an interface, which must be down for that on older kernels.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rename(&mut self, interface: u32, name: &str) -> io::Result<()> {
        let mut message = link(interface, 0, 0);
        message.text(IFLA_IFNAME, name);
        self.ask(message)
    }

    /// Sets the largest packet's size.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_mtu(&mut self, interface: u32, mtu: u32) -> io::Result<()> {
        let mut message = link(interface, 0, 0);
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        self.ask(message)
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up(&mut self, interface: u32, up: bool) -> io::Result<()> {
        self.ask(link(interface, if up { IFF_UP } else { 0 }, IFF_UP))
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, interface: u32, address: Prefix) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, CREATE | REPLACE);
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        message.bytes(&[family(address.address), address.length, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.address(IFA_LOCAL, address.address);
        message.address(IFA_ADDRESS, address.address);
        if address.address.is_ipv6() {
            message.attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
        }
        self.ask(message)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// What the kernel says, or `InvalidInput` for one that has neither destination nor gateway.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let any = route
            .destination
            .map(|to| to.address)
            .or(route.gateway)
            .or(route.source);
        let any = any.ok_or(io::ErrorKind::InvalidInput)?;
        let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE);
        let length = route.destination.map_or(0, |to| to.length);
        // struct rtmsg: family, two prefix lengths, tos, table, protocol, scope, type, flags.
        let kind = [
            family(any),
            length,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_STATIC,
            route.scope,
            RTN_UNICAST,
        ];
        message.bytes(&kind);
        let flags = if route.on_link { RTNH_F_ONLINK } else { 0 };
        message.bytes(&flags.to_ne_bytes());
        if let Some(to) = route.destination {
            message.address(RTA_DST, to.address);
        }
        message.attribute(RTA_OIF, &route.interface.to_ne_bytes());
        for (kind, address) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
            if let Some(address) = address {
                message.address(kind, address);
            }
        }
        if route.metric != 0 {
            message.attribute(RTA_PRIORITY, &route.metric.to_ne_bytes());
        }
        self.ask(message)
    }

    /// Says for good which hardware address an address has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_neighbour(
        &mut self,
        interface: u32,
        address: IpAddr,
        mac: [u8; 6],
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWNEIGH, CREATE | REPLACE);
        // struct ndmsg: family, three bytes of padding, index, state, flags, type.
        message.bytes(&[family(address), 0, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.bytes(&NUD_PERMANENT.to_ne_bytes());
        message.bytes(&[0, 0]);
        message.address(NDA_DST, address);
        message.attribute(NDA_LLADDR, &mac);
        self.ask(message)
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = [0; 4096];
        loop {
            let (length, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
            if let Some(outcome) = acknowledgement(&answer[..length], self.sequence) {
                return outcome;
            }
        }
    }
}

fn link(interface: u32, flags: u32, change: u32) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0);
    // struct ifinfomsg: family, padding, type, index, flags, change.
    message.bytes(&[0; 4]);
    message.bytes(&interface.to_ne_bytes());
    message.bytes(&flags.to_ne_bytes());
    message.bytes(&change.to_ne_bytes());
    message
}

/// Reads six bytes in hexadecimal, with colons.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read() {
        let prefix = Prefix::parse("10.0.2.15/24").unwrap();
        assert_eq!(
            (prefix.address.to_string().as_str(), prefix.length),
            ("10.0.2.15", 24)
        );
        assert_eq!(Prefix::parse("fd00::2/128").unwrap().length, 128);
        for bad in [
            "10.0.2.15",
            "10.0.2.15/33",
            "fd00::/129",
            "x/8",
            "/8",
            "1.2.3.4/-1",
            "1.2.3.4/",
        ] {
            assert_eq!(Prefix::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hardware_addresses_are_read() {
        assert_eq!(
            parse_mac("52:54:00:ff:0a:01"),
            Some([0x52, 0x54, 0, 0xff, 10, 1])
        );
        for bad in [
            "",
            "52:54:00:ff:0a",
            "52:54:00:ff:0a:01:02",
            "5:54:00:ff:0a:01",
            "zz:54:00:ff:0a:01",
            "+1:54:00:ff:0a:011",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad:?}");
        }
    }
}

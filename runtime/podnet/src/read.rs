//! From what the kernel tells to what the guest shall have.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily as Family;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol,
};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::netlink::Netlink;
use crate::wiring::is_ours;
use crate::{Error, Interface, Mac, Neighbour, Network, Prefix};

mod routes;

/// All that the guest shall have.
///
/// Interfaces that are down stay out: the kernel puts some into every new namespace (`tunl0`, `sit0`).
pub(crate) fn network(netlink: &mut Netlink, links: &[LinkMessage]) -> Result<Network, Error> {
    let mut interfaces = Vec::new();
    for link in links.iter().filter(|link| is_for_guest(link)) {
        interfaces.push(interface(link)?);
    }
    interfaces.sort_by_key(|interface| interface.index);
    let addresses = netlink.addresses()?;
    for interface in &mut interfaces {
        let own = addresses
            .iter()
            .filter(|a| a.header.index == interface.index);
        let mac = interface.mac;
        interface.addresses = own
            .filter_map(|address| self::address(address, mac))
            .collect();
    }
    let mut routes = routes::of(netlink.routes(Family::Inet)?, &interfaces)?;
    routes.extend(routes::of(netlink.routes(Family::Inet6)?, &interfaces)?);
    // A gateway must be in reach before what lies behind it.
    routes.sort_by_key(|route| route.gateway.is_some());
    let neighbours = netlink.neighbours()?;
    let neighbours = neighbours
        .iter()
        .filter_map(|entry| neighbour(entry, &interfaces));
    let neighbours = neighbours.collect();
    Ok(Network {
        interfaces,
        routes,
        neighbours,
    })
}

fn is_for_guest(link: &LinkMessage) -> bool {
    let flags = link.header.flags;
    flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback) && !is_ours(link)
}

/// The interface's name.
pub(crate) fn name(link: &LinkMessage) -> &str {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
    name.unwrap_or_default()
}

/// What kind of virtual interface it is; none of a physical one.
pub(crate) fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    infos?.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn interface(link: &LinkMessage) -> Result<Interface, Error> {
    let unsuitable = |why| Error::Unsuitable {
        interface: name(link).to_owned(),
        why,
    };
    if link.header.link_layer_type != LinkLayerType::Ether {
        return Err(unsuitable("it carries no Ethernet frames"));
    }
    if link.header.flags.contains(LinkFlags::Noarp) {
        let why = match kind(link) {
            Some(InfoKind::IpVlan) => {
                "ipvlan in mode l3 or l3s passes no ARP, which the guest needs: use ipvlan in mode l2, \
                 macvlan, or a bridge"
            }
            _ => "it does no ARP, which the guest needs",
        };
        return Err(unsuitable(why));
    }
    if link.header.flags.contains(LinkFlags::Port) || has_controller(link) {
        return Err(unsuitable(
            "it is a port of a bridge or bond in the pod's namespace",
        ));
    }
    let (mut mac, mut mtu) = (None, 0);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = self::mac(bytes),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    Ok(Interface {
        name: name(link).to_owned(),
        index: link.header.index,
        mac: mac.ok_or_else(|| unsuitable("it has no Ethernet address"))?,
        mtu,
        addresses: Vec::new(),
    })
}

fn has_controller(link: &LinkMessage) -> bool {
    let controller = |a: &LinkAttribute| matches!(a, LinkAttribute::Controller(_));
    link.attributes.iter().any(controller)
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    let mac: [u8; 6] = bytes.try_into().ok()?;
    (mac != [0; 6]).then_some(Mac(mac))
}

/// An address that the guest does not find out by itself.
fn address(message: &AddressMessage, mac: Mac) -> Option<Prefix> {
    let (mut local, mut remote, mut made_by) = (None, None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::Protocol(protocol) => made_by = Some(*protocol),
            _ => {}
        }
    }
    // Of a point-to-point address `Address` is the other end (linux/if_addr.h).
    let address = local.or(remote)?;
    let by_itself = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => {
            let told = flags.contains(AddressFlags::Permanent);
            let derived = v6 == mac.link_local() || made_by == Some(AddressProtocol::LinkLocal);
            !told || derived
        }
    };
    (!by_itself).then_some(Prefix {
        address,
        length: message.header.prefix_len,
    })
}

fn neighbour(message: &NeighbourMessage, interfaces: &[Interface]) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let interface = interfaces
        .iter()
        .find(|i| i.index == message.header.ifindex)?;
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLocalAddress(bytes) => mac = self::mac(bytes),
            _ => {}
        }
    }
    Some(Neighbour {
        interface: interface.name.clone(),
        address: address?,
        mac: mac?,
    })
}

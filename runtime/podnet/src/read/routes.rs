//! Which of the pod's routes the guest is told.

use netlink_packet_route::AddressFamily as Family;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType, RouteVia,
};

use crate::netlink::ip;
use crate::{Error, Interface, Prefix, Route};

/// `RT_TABLE_LOCAL` (rtnetlink(7)): the kernel's own, for its own addresses.
const TABLE_LOCAL: u32 = 255;

/// Those of the main table through the guest's interfaces, without what the guest makes by itself.
pub(super) fn of(
    messages: Vec<RouteMessage>,
    interfaces: &[Interface],
) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    let mut elsewhere = 0_usize;
    for message in &messages {
        let Some(parts) = Parts::of(message).filter(|parts| parts.table != TABLE_LOCAL) else {
            continue;
        };
        if parts.hops > 1 {
            return Err(parts.refused("it has several next hops"));
        }
        let own = interfaces.iter().find(|i| Some(i.index) == parts.interface);
        let Some(interface) = own else { continue };
        if parts.table != u32::from(RouteHeader::RT_TABLE_MAIN) {
            elsewhere += 1;
        } else if !parts.comes_by_itself(interface) {
            routes.push(parts.route(interface));
        }
    }
    if elsewhere > 0 {
        tracing::warn!("{elsewhere} routes of tables other than main are not passed to the guest");
    }
    Ok(routes)
}

/// A route's message, taken apart.
struct Parts {
    destination: Option<Prefix>,
    gateway: Option<std::net::IpAddr>,
    source: Option<std::net::IpAddr>,
    interface: Option<u32>,
    metric: u32,
    table: u32,
    hops: usize,
    on_link: bool,
    ipv6: bool,
    scope: u8,
    protocol: RouteProtocol,
}

impl Parts {
    /// Nothing of what is no way to another host: local, broadcast, multicast, cached.
    fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut parts = Self {
            destination: None,
            gateway: None,
            source: None,
            interface: None,
            metric: 0,
            table: header.table.into(),
            hops: 0,
            on_link: header.flags.contains(RouteFlags::Onlink),
            ipv6: header.address_family == Family::Inet6,
            scope: header.scope.into(),
            protocol: header.protocol,
        };
        for attribute in &message.attributes {
            parts.take(attribute, header.destination_prefix_length);
        }
        Some(parts)
    }

    fn take(&mut self, attribute: &RouteAttribute, length: u8) {
        match attribute {
            RouteAttribute::Destination(to) => {
                self.destination = ip(to).map(|address| Prefix { address, length });
            }
            RouteAttribute::Gateway(gateway) => self.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(v4)) => self.gateway = Some((*v4).into()),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => self.gateway = Some((*v6).into()),
            RouteAttribute::PrefSource(source) => self.source = ip(source),
            RouteAttribute::Oif(index) => self.interface = Some(*index),
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::Table(table) => self.table = *table,
            RouteAttribute::MultiPath(hops) => self.hops = hops.len(),
            _ => {}
        }
    }

    /// The kernel makes a route to the network of every address, and IPv6 more from routers'
    /// announcements, which reach the guest too.
    fn comes_by_itself(&self, interface: &Interface) -> bool {
        match self.protocol {
            RouteProtocol::Ra | RouteProtocol::IcmpRedirect => true,
            RouteProtocol::Kernel => {
                let of_address = |a: &Prefix| Some(a.network()) == self.destination;
                let link_local = |to: Prefix| to.to_string() == "fe80::/64";
                interface.addresses.iter().any(of_address)
                    || self.destination.is_some_and(link_local)
            }
            _ => false,
        }
    }

    fn route(self, interface: &Interface) -> Route {
        Route {
            destination: self.destination,
            gateway: self.gateway,
            interface: interface.name.clone(),
            source: self.source,
            scope: self.scope,
            metric: self.metric,
            on_link: self.on_link,
            ipv6: self.ipv6,
        }
    }

    fn refused(&self, why: &'static str) -> Error {
        let destination = self.destination.map(|to| to.to_string());
        Error::Route {
            destination: destination.unwrap_or_else(|| "default".to_owned()),
            why,
        }
    }
}

//! The pod's interfaces, as the host's requests describe them.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use ringside_netdev::rtnetlink::{self, Prefix, Routing, parse_mac};
use ringside_protocol::agent::{Interface, Neighbour, NetworkConfig, Route};

use super::error::{Error, Result};

/// A device that was plugged in just now may take a moment.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Longest name of an interface, in bytes (netdevice(7)).
const LONGEST_NAME: usize = 15;

/// The loopback, and all that is configured.
pub(super) fn start(config: &NetworkConfig) -> Result<()> {
    let mut routing = open()?;
    let loopback = index_of("lo", "interfaces.name")?;
    routing
        .set_up(loopback, true)
        .context("cannot bring the loopback up")?;
    configure(config)
}

/// Interfaces first, then what needs them.
pub(super) fn configure(config: &NetworkConfig) -> Result<()> {
    let mut routing = open()?;
    for interface in &config.interfaces {
        set_up(&mut routing, interface)?;
    }
    for route in &config.routes {
        add_route(&mut routing, route)?;
    }
    for neighbour in &config.neighbours {
        add_neighbour(&mut routing, neighbour)?;
    }
    Ok(())
}

fn open() -> Result<Routing> {
    Ok(Routing::open().context("cannot open a socket to configure the network")?)
}

fn set_up(routing: &mut Routing, wanted: &Interface) -> Result<()> {
    if parse_mac(&wanted.mac).is_none() {
        return Err(Error::invalid(
            "interfaces.mac",
            format!("{:?} is no hardware address", wanted.mac),
        ));
    }
    let addresses: Vec<_> = wanted
        .addresses
        .iter()
        .map(|text| prefix(text, "interfaces.addresses"))
        .collect::<Result<_>>()?;
    let present = find(&wanted.mac)?;
    let index = index_of(&present, "interfaces.mac")?;
    let failed = |what: &str| format!("cannot set the {what} of interface {present}");
    if !wanted.name.is_empty() && wanted.name != present {
        check_name(&wanted.name)?;
        routing
            .set_up(index, false)
            .with_context(|| failed("state"))?;
        routing
            .rename(index, &wanted.name)
            .with_context(|| failed("name"))?;
    }
    if wanted.mtu != 0 {
        routing
            .set_mtu(index, wanted.mtu)
            .with_context(|| failed("MTU"))?;
    }
    routing
        .set_up(index, true)
        .with_context(|| failed("state"))?;
    for address in addresses {
        routing
            .add_address(index, address)
            .with_context(|| failed("addresses"))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if name.len() <= LONGEST_NAME && !matches!(name, "." | "..") && name.bytes().all(is_name) {
        return Ok(());
    }
    Err(Error::invalid(
        "interfaces.name",
        format!("{name:?} is no name of an interface"),
    ))
}

fn add_route(routing: &mut Routing, wanted: &Route) -> Result<()> {
    let destination = match wanted.destination.as_str() {
        "default" => None,
        text => Some(prefix(text, "routes.destination")?),
    };
    let scope = u8::try_from(wanted.scope).map_err(|_| {
        Error::invalid("routes.scope", format!("{} is more than 255", wanted.scope))
    })?;
    let route = rtnetlink::Route {
        destination,
        gateway: optional(&wanted.gateway, "routes.gateway")?,
        interface: index_of(&wanted.interface, "routes.interface")?,
        source: optional(&wanted.source, "routes.source")?,
        scope,
        metric: wanted.metric,
        on_link: wanted.on_link,
    };
    if route.destination.is_none() && route.gateway.is_none() && route.source.is_none() {
        return Err(Error::invalid(
            "routes.gateway",
            "a default route without any address has no family",
        ));
    }
    routing.add_route(&route).with_context(|| {
        format!(
            "cannot add the route to {} by {}",
            wanted.destination, wanted.interface
        )
    })?;
    Ok(())
}

fn add_neighbour(routing: &mut Routing, wanted: &Neighbour) -> Result<()> {
    let mac = parse_mac(&wanted.mac).ok_or_else(|| {
        Error::invalid(
            "neighbours.mac",
            format!("{:?} is no hardware address", wanted.mac),
        )
    })?;
    let address = address(&wanted.address, "neighbours.address")?;
    let index = index_of(&wanted.interface, "neighbours.interface")?;
    routing
        .add_neighbour(index, address, mac)
        .with_context(|| format!("cannot add the neighbour {address}"))?;
    Ok(())
}

fn prefix(text: &str, field: &'static str) -> Result<Prefix> {
    Prefix::parse(text).ok_or_else(|| {
        Error::invalid(
            field,
            format!("{text:?} is no address with a prefix length"),
        )
    })
}

fn address(text: &str, field: &'static str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| Error::invalid(field, format!("{text:?} is no address")))
}

fn optional(text: &str, field: &'static str) -> Result<Option<IpAddr>> {
    (!text.is_empty()).then(|| address(text, field)).transpose()
}

fn index_of(name: &str, field: &'static str) -> Result<u32> {
    check_name(name)?;
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .map_err(|_| Error::invalid(field, format!("there is no interface {name:?}")))?;
    Ok(text
        .trim()
        .parse()
        .context("an interface's index is no number")?)
}

/// The name of the interface with this hardware address, as soon as there is one.
fn find(mac: &str) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entries = fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let has_it = |name: &String| {
            fs::read_to_string(format!("/sys/class/net/{name}/address"))
                .is_ok_and(|address| address.trim_end() == mac)
        };
        if let Some(name) = names.into_iter().find(has_it) {
            return Ok(name);
        }
        if Instant::now() > deadline {
            return Err(anyhow!("no network interface has the address {mac}").into());
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_are_checked() {
        for good in ["eth0", "a.1", "fifteen-bytes-x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [".", "..", "a/b", "a b", "sixteen-bytes-xx", "ž", "a:1"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_names_its_field() {
        let refused = |change: fn(&mut NetworkConfig)| {
            let mut config = NetworkConfig::new();
            change(&mut config);
            configure(&config).unwrap_err().to_string()
        };
        let bad_mac = refused(|config| config.interfaces.push(Interface::new()));
        assert!(bad_mac.starts_with("interfaces.mac:"), "{bad_mac}");
        let bad_route = refused(|config| config.routes.push(Route::new()));
        assert!(bad_route.starts_with("routes.destination:"), "{bad_route}");
        let bad_neighbour = refused(|config| config.neighbours.push(Neighbour::new()));
        assert!(
            bad_neighbour.starts_with("neighbours.mac:"),
            "{bad_neighbour}"
        );
        let no_such = refused(|config| {
            let mut route = Route::new();
            route.destination = "10.0.0.0/8".to_owned();
            route.interface = "no-such-if".to_owned();
            config.routes.push(route);
        });
        assert!(no_such.contains("no-such-if"), "{no_such}");
    }
}

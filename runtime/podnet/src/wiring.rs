//! Taps beside the pod's interfaces, and what joins them.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkMessage,
};

use crate::netlink::Netlink;
use crate::{Error, Interface, Network, PodNamespace, read, sys, traffic};

/// A tap is called this and its interface's index: with ten digits that is as long as a name may be.
const TAP: &str = "rstap";
/// How long a killed daemon may still hold a tap: the kernel takes its io_uring apart afterwards.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pod's interfaces, wired to taps. Dropping it takes taps and redirections away.
#[derive(Debug)]
pub struct Wiring {
    netlink: Netlink,
    network: Network,
    wired: Vec<Wired>,
}

/// An interface with its tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wired {
    /// The interface, as the guest shall have it.
    pub interface: Interface,
    /// The tap's name, in the same namespace: `vhost-user-net --tap NAME --netns PATH --mac MAC`.
    pub tap: String,
    /// Whether the interface's ingress qdisc is ours.
    redirected: bool,
}

impl Wiring {
    /// What the guest is told.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The taps, in the order of the network's interfaces.
    #[must_use]
    pub fn wired(&self) -> &[Wired] {
        &self.wired
    }

    /// Leaves everything in place, for [`PodNamespace::remove`] by another process.
    pub fn keep(mut self) {
        self.wired.clear();
    }

    /// Takes taps and redirections away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(mut self) -> Result<(), Error> {
        self.wired.clear();
        remove(&mut self.netlink)
    }
}

impl Drop for Wiring {
    fn drop(&mut self) {
        for wired in self.wired.drain(..).rev() {
            if let Err(error) = unwire(&mut self.netlink, &wired) {
                tracing::warn!("{error}: {:?}", std::error::Error::source(&error));
            }
        }
    }
}

/// Whether an interface is a tap of ours.
pub(crate) fn is_ours(link: &LinkMessage) -> bool {
    interface_of(link).is_some()
}

/// The index of the interface that a tap of ours belongs to.
fn interface_of(link: &LinkMessage) -> Option<u32> {
    let index = read::name(link).strip_prefix(TAP)?.parse().ok()?;
    (read::kind(link) == Some(&InfoKind::Tun)).then_some(index)
}

pub(crate) fn wire(namespace: &PodNamespace, queue_pairs: u16) -> Result<Wiring, Error> {
    let mut netlink = namespace.netlink()?;
    let links = unused(&mut netlink)?;
    let network = read::network(&mut netlink, &links)?;
    remove(&mut netlink)?;
    let mut wiring = Wiring {
        netlink,
        network: Network::default(),
        wired: Vec::new(),
    };
    for interface in &network.interfaces {
        let tap = format!("{TAP}{}", interface.index);
        namespace
            .run(|| sys::tap::make(&tap, queue_pairs > 1))?
            .map_err(|source| Error::Tap {
                name: tap.clone(),
                source,
            })?;
        wiring.wired.push(Wired {
            interface: interface.clone(),
            tap,
            redirected: false,
        });
        // On an error the drop of `wiring` undoes what was done.
        if let Some(last) = wiring.wired.last_mut() {
            join(&mut wiring.netlink, last)?;
        }
    }
    wiring.network = network;
    Ok(wiring)
}

/// All interfaces, once no tap of ours is open any more.
fn unused(netlink: &mut Netlink) -> Result<Vec<LinkMessage>, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let links = netlink.links()?;
        let Some(used) = links.iter().find(|link| is_ours(link) && has_carrier(link)) else {
            return Ok(links);
        };
        if Instant::now() > deadline {
            let index = interface_of(used);
            let interface = links.iter().find(|link| Some(link.header.index) == index);
            return Err(Error::InUse {
                interface: interface.map_or("", read::name).to_owned(),
                tap: read::name(used).to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A tap has a carrier while somebody has it open.
fn has_carrier(link: &LinkMessage) -> bool {
    let carrier = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Carrier(1));
    link.attributes.iter().any(carrier)
}

fn join(netlink: &mut Netlink, wired: &mut Wired) -> Result<(), Error> {
    let links = netlink.links()?;
    let tap = index_of(&links, &wired.tap).ok_or_else(|| Error::Tap {
        name: wired.tap.clone(),
        source: io::ErrorKind::NotFound.into(),
    })?;
    let interface = &wired.interface;
    let refused = |what: String| move |source| Error::Netlink { what, source };
    be_silent(netlink, tap);
    set(
        netlink,
        tap,
        &[LinkAttribute::Mtu(interface.mtu)],
        LinkFlags::Up,
    )
    .map_err(refused(format!("switch tap {} on", wired.tap)))?;
    let of_tap = format!("redirect what comes from tap {}", wired.tap);
    traffic::add_ingress(netlink, tap)
        .and_then(|()| traffic::redirect(netlink, tap, interface.index))
        .map_err(refused(of_tap))?;
    match traffic::add_ingress(netlink, interface.index) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Redirected(interface.name.clone()));
        }
        outcome => outcome.map_err(refused(format!("add a qdisc to {}", interface.name)))?,
    }
    wired.redirected = true;
    traffic::redirect(netlink, interface.index, tap).map_err(refused(format!(
        "redirect what comes in on {}",
        interface.name
    )))?;
    // The guest joins groups that the pod's interface does not know of, and macvlan would filter.
    set(netlink, interface.index, &[], LinkFlags::Allmulti)
        .map_err(refused(format!("have {} take all groups", interface.name)))
}

fn index_of(links: &[LinkMessage], name: &str) -> Option<u32> {
    let link = links.iter().find(|link| read::name(link) == name)?;
    Some(link.header.index)
}

/// Sets attributes, and raises flags.
fn set(
    netlink: &mut Netlink,
    index: u32,
    attributes: &[LinkAttribute],
    flags: LinkFlags,
) -> io::Result<()> {
    change(netlink, index, attributes, flags, flags)
}

fn change(
    netlink: &mut Netlink,
    index: u32,
    attributes: &[LinkAttribute],
    flags: LinkFlags,
    mask: LinkFlags,
) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = mask;
    message.attributes = attributes.to_vec();
    netlink.order(RouteNetlinkMessage::SetLink(message), 0)
}

/// Else the kernel gives the tap a link-local address of its own, and tells the guest about it. Without
/// IPv6 in the kernel there is nothing to be silent about, and it refuses.
fn be_silent(netlink: &mut Netlink, tap: u32) {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]);
    if let Err(error) = change(
        netlink,
        tap,
        &[attribute],
        LinkFlags::empty(),
        LinkFlags::empty(),
    ) {
        tracing::debug!("tap {tap} keeps its link-local address: {error}");
    }
}

/// Undoes [`wire`], whoever did it.
pub(crate) fn remove(netlink: &mut Netlink) -> Result<(), Error> {
    let links = netlink.links()?;
    for tap in &links {
        let Some(index) = interface_of(tap) else {
            continue;
        };
        if let Some(interface) = links.iter().find(|link| link.header.index == index) {
            restore(netlink, index, read::name(interface))?;
        }
        delete(netlink, tap.header.index, read::name(tap))?;
    }
    Ok(())
}

fn unwire(netlink: &mut Netlink, wired: &Wired) -> Result<(), Error> {
    if wired.redirected {
        restore(netlink, wired.interface.index, &wired.interface.name)?;
    }
    match index_of(&netlink.links()?, &wired.tap) {
        Some(index) => delete(netlink, index, &wired.tap),
        None => Ok(()),
    }
}

/// Lets the kernel have the interface's packets again.
fn restore(netlink: &mut Netlink, index: u32, name: &str) -> Result<(), Error> {
    let removed = traffic::remove_ingress(netlink, index);
    let quiet = change(netlink, index, &[], LinkFlags::empty(), LinkFlags::Allmulti);
    absent_is_fine(removed)
        .and_then(|()| absent_is_fine(quiet))
        .map_err(|source| Error::Netlink {
            what: format!("end the redirection of {name}"),
            source,
        })
}

fn delete(netlink: &mut Netlink, index: u32, name: &str) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let deleted = netlink.order(RouteNetlinkMessage::DelLink(message), 0);
    absent_is_fine(deleted).map_err(|source| Error::Netlink {
        what: format!("delete tap {name}"),
        source,
    })
}

/// CNI may have taken the interface away before us, and its qdisc with it.
fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

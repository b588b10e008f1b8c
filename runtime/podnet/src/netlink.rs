//! rtnetlink(7): asking and ordering, one message after the other, blocking.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::AddressFamily as Family;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAddress, RouteMessage};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::Error;

/// The kernel's dumps come in pieces of 32 KiB at most (`netlink_dump`).
const PIECE: usize = 64 << 10;
/// A dump that others' changes broke up is taken again that often.
const TRIES: usize = 16;

/// A netlink socket. It belongs for ever to the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    piece: Vec<u8>,
}

/// What one read brought.
enum Progress {
    /// There is more to come.
    More,
    /// The answer is complete.
    Done,
}

impl Netlink {
    /// Opens a socket for the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is protocol 0.
        )?;
        Ok(Self {
            socket,
            sequence: 0,
            piece: vec![0; PIECE],
        })
    }

    /// All interfaces.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump("list the interfaces", request, |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
    }

    /// All addresses.
    pub(crate) fn addresses(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list the addresses", request, |answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
    }

    /// All routes of a family, of every table.
    pub(crate) fn routes(&mut self, family: Family) -> Result<Vec<RouteMessage>, Error> {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        let request = RouteNetlinkMessage::GetRoute(route);
        self.dump("list the routes", request, |answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
    }

    /// All neighbours.
    pub(crate) fn neighbours(&mut self) -> Result<Vec<NeighbourMessage>, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump("list the neighbours", request, |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
            _ => None,
        })
    }

    /// Has the kernel do something.
    pub(crate) fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags)?;
        while let Progress::More = self.read(&mut |_| ())? {}
        Ok(())
    }

    fn dump<T>(
        &mut self,
        what: &str,
        request: RouteNetlinkMessage,
        mut select: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut take = || {
            let mut found = Vec::new();
            self.request(request.clone(), NLM_F_DUMP)?;
            while let Progress::More = self.read(&mut |answer| found.extend(select(answer)))? {}
            Ok(found)
        };
        let mut taken = take();
        for _ in 1..TRIES {
            match taken {
                Err(error) if io::Error::kind(&error) == io::ErrorKind::Interrupted => {
                    taken = take()
                }
                _ => break,
            }
        }
        taken.map_err(|source| Error::Netlink {
            what: what.to_owned(),
            source,
        })
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Reads a piece of the answer to the last request, and passes over what is left of earlier ones.
    fn read(&mut self, each: &mut dyn FnMut(RouteNetlinkMessage)) -> io::Result<Progress> {
        let (len, _) = recv(&self.socket, &mut self.piece[..], RecvFlags::empty())?;
        let mut rest = self.piece.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            // Messages are padded to a multiple of four (NLMSG_ALIGN).
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(Progress::Done),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(Progress::Done),
                        Some(_) => Err(error.to_io()),
                    };
                }
                NetlinkPayload::InnerMessage(message) => each(message),
                _ => {}
            }
        }
        Ok(Progress::More)
    }
}

/// An address of a route, if it is one of IP.
pub(crate) fn ip(address: &RouteAddress) -> Option<std::net::IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

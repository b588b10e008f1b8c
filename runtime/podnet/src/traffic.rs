//! Traffic control (tc(8)): everything that comes in on one interface goes out by another, before the
//! kernel's own network stack sees it.
//!
//! The ingress hook comes before the protocols' handlers (`__netif_receive_skb_core`), so the addresses
//! that CNI gave the interface may stay on it: nothing reaches them.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption,
    TcActionOption, TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage,
    TcMirror, TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use crate::netlink::Netlink;

/// The ingress qdisc's handle, `ffff:` (`sch_ingress` accepts no other).
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};
/// Filters are asked in this order; there is one only.
const PRIORITY: u32 = 1;
/// `ETH_P_ALL` (linux/if_ether.h).
const EVERY_PROTOCOL: u16 = 3;

/// Gives interface `index` an ingress qdisc.
///
/// # Errors
/// `EEXIST` when it has one; what else the kernel says.
pub(crate) fn add_ingress(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(ingress(index)?);
    netlink.order(message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Takes the ingress qdisc and its filters away.
///
/// # Errors
/// `ENOENT` or `EINVAL` when it has none; what else the kernel says.
pub(crate) fn remove_ingress(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    netlink.order(RouteNetlinkMessage::DelQueueDiscipline(ingress(index)?), 0)
}

/// Redirects everything that comes in on `from`, which has an ingress qdisc, to go out by `to`.
///
/// # Errors
/// What the kernel says.
pub(crate) fn redirect(netlink: &mut Netlink, from: u32, to: u32) -> io::Result<()> {
    let mut message = TcMessage::with_index(signed(from)?);
    message.header.parent = INGRESS;
    message.header.info = PRIORITY << 16 | u32::from(EVERY_PROTOCOL.to_be());
    message.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(everything())),
            TcOption::U32(TcFilterU32Option::Action(vec![go_out_by(to)])),
        ]),
    ];
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    netlink.order(message, NLM_F_CREATE | NLM_F_EXCL)
}

fn ingress(index: u32) -> io::Result<TcMessage> {
    let mut message = TcMessage::with_index(signed(index)?);
    message.header.handle = INGRESS;
    message.header.parent = TcHandle::INGRESS;
    message.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    Ok(message)
}

/// One key without a bit that has to match. (`matchall` says it shorter, but is missing from kernels that
/// have `u32`, which Kata Containers needs as well.)
fn everything() -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    selector
}

fn go_out_by(index: u32) -> TcAction {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = index;
    let parameters = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![parameters]),
    ];
    action
}

fn signed(index: u32) -> io::Result<i32> {
    i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput.into())
}

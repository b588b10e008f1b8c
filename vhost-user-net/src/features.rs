//! Feature bits (virtio 1.2, 5.1.3): what is offered, and what an acknowledged set means.

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO,
    VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS,
};

use crate::backend::Offloads;
use crate::header::{HeaderLen, MAX_FRAME, MIN_FRAME, VLAN_TAG};

/// Set of feature bits out of bit numbers.
pub const fn bits<const N: usize>(numbers: [u32; N]) -> u64 {
    let mut set = 0;
    let mut at = 0;
    while at < N {
        set |= 1 << numbers[at];
        at += 1;
    }
    set
}

/// Received frames may leave this undone, if the driver acknowledges the bit.
const GUEST: [(u32, Offloads); 7] = [
    (VIRTIO_NET_F_GUEST_CSUM, Offloads::CHECKSUM),
    (VIRTIO_NET_F_GUEST_TSO4, Offloads::TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, Offloads::TSO6),
    (VIRTIO_NET_F_GUEST_ECN, Offloads::TSO_ECN),
    (VIRTIO_NET_F_GUEST_UFO, Offloads::UFO),
    (VIRTIO_NET_F_GUEST_USO4, Offloads::USO4),
    (VIRTIO_NET_F_GUEST_USO6, Offloads::USO6),
];

/// The driver may leave this undone in frames it sends.
const HOST: [(u32, Offloads); 6] = [
    (VIRTIO_NET_F_CSUM, Offloads::CHECKSUM),
    (VIRTIO_NET_F_HOST_TSO4, Offloads::TSO4),
    (VIRTIO_NET_F_HOST_TSO6, Offloads::TSO6),
    (VIRTIO_NET_F_HOST_ECN, Offloads::TSO_ECN),
    (VIRTIO_NET_F_HOST_UFO, Offloads::UFO),
    (VIRTIO_NET_F_HOST_USO, Offloads::USO),
];

/// What every device of ours can do, whatever its port.
const ALWAYS: u64 = bits([
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
]);

/// The features of a device with these properties.
pub fn offered(offloads: Offloads, pairs: usize, mac: bool, mtu: bool) -> u64 {
    let able = GUEST.iter().chain(&HOST);
    let able = able.filter(|(_, offload)| offloads.contains(*offload));
    let mut features = able.fold(ALWAYS, |features, (bit, _)| features | 1 << bit);
    for (bit, has) in [
        (VIRTIO_NET_F_MQ, pairs > 1),
        (VIRTIO_NET_F_MAC, mac),
        (VIRTIO_NET_F_MTU, mtu),
    ] {
        features |= u64::from(has) << bit;
    }
    features
}

/// What the driver and we agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated(u64);

impl Negotiated {
    /// Out of the acknowledged bits.
    pub fn new(features: u64) -> Self {
        Self(features)
    }

    /// The acknowledged bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether feature `bit` was acknowledged.
    pub fn has(self, bit: u32) -> bool {
        self.0 & 1 << bit != 0
    }

    /// Whether a received frame may fill several buffers (virtio 1.2, 5.1.6.4).
    pub fn mergeable(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }

    /// Length of the frames' header (virtio 1.2, 5.1.6.1).
    pub fn header_len(self) -> HeaderLen {
        if self.has(VIRTIO_F_VERSION_1) || self.mergeable() {
            HeaderLen::Modern
        } else {
            HeaderLen::Legacy
        }
    }

    /// Whether received frames may come with their checksum unfinished or unverified.
    pub fn checksum(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_CSUM)
    }

    /// What received frames may leave undone. Without checksum offload nothing goes: all others
    /// need it (virtio 1.2, 5.1.3.1), and so does the kernel.
    pub fn guest_offloads(self) -> Offloads {
        offloads_in(self.0)
    }

    /// The part of `wanted`, a set of `VIRTIO_NET_F_GUEST_*` bits, that was agreed on; `None` if
    /// it asks for more (virtio 1.2, 5.1.6.5.6).
    pub fn chosen_offloads(self, wanted: u64) -> Option<Offloads> {
        let known = GUEST.iter().fold(0, |set, (bit, _)| set | 1 << bit);
        (wanted & !(self.0 & known) == 0).then(|| offloads_in(wanted))
    }

    /// Longest frame with its header that a receive queue has to be ready for.
    pub fn largest_received(self, mtu: Option<u16>) -> usize {
        let segments = self.guest_offloads().intersects(Offloads::SEGMENTATION);
        let frame = match mtu {
            Some(mtu) if !segments => MIN_FRAME + VLAN_TAG + usize::from(mtu),
            _ => MAX_FRAME,
        };
        self.header_len().bytes() + frame
    }
}

fn offloads_in(features: u64) -> Offloads {
    if features & 1 << VIRTIO_NET_F_GUEST_CSUM == 0 {
        return Offloads::NONE;
    }
    let set = GUEST.iter().filter(|(bit, _)| features & 1 << bit != 0);
    let set = set.fold(Offloads::NONE, |set, (_, offload)| set | *offload);
    if set.contains(Offloads::USO) {
        return set;
    }
    // The kernel takes both kinds of USO or neither.
    set & (Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN | Offloads::UFO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_port_can_do_is_offered() {
        let features = offered(Offloads::CHECKSUM | Offloads::TSO4, 1, false, true);
        let on = bits([
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_MTU,
        ]);
        let off = bits([
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_HOST_USO,
            VIRTIO_NET_F_MQ,
            VIRTIO_NET_F_MAC,
        ]);
        assert_eq!(features & (on | off), on);
    }

    #[test]
    fn segmentation_needs_checksum_offload() {
        let tso = Negotiated::new(bits([VIRTIO_NET_F_GUEST_TSO4]));
        assert_eq!(tso.guest_offloads(), Offloads::NONE);
        let both = Negotiated::new(bits([VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM]));
        assert_eq!(both.guest_offloads(), Offloads::CHECKSUM | Offloads::TSO4);
        assert_eq!(both.largest_received(Some(1500)), 10 + MAX_FRAME);
        assert_eq!(tso.largest_received(Some(1500)), 10 + 1518);
    }

    #[test]
    fn a_driver_cannot_choose_offloads_that_were_not_agreed_on() {
        let agreed = Negotiated::new(bits([VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM]));
        let csum = bits([VIRTIO_NET_F_GUEST_CSUM]);
        assert_eq!(agreed.chosen_offloads(csum), Some(Offloads::CHECKSUM));
        assert_eq!(agreed.chosen_offloads(0), Some(Offloads::NONE));
        let more = bits([VIRTIO_NET_F_GUEST_TSO6]);
        assert_eq!(agreed.chosen_offloads(more), None);
        assert_eq!(agreed.chosen_offloads(bits([VIRTIO_NET_F_CTRL_VQ])), None);
    }

    #[test]
    fn the_header_is_short_for_old_drivers_only() {
        let len = |features| Negotiated::new(features).header_len();
        assert_eq!(len(0), HeaderLen::Legacy);
        assert_eq!(len(bits([VIRTIO_NET_F_MRG_RXBUF])), HeaderLen::Modern);
        assert_eq!(len(bits([VIRTIO_F_VERSION_1])), HeaderLen::Modern);
    }
}

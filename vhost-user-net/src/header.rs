//! The header before every frame, `struct virtio_net_hdr` (virtio 1.2, 5.1.6).

/// Length of the header on the rings of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderLen {
    /// Without `num_buffers`: drivers of before virtio 1.0 that merge no buffers
    /// (virtio 1.2, 5.1.6.1).
    Legacy,
    /// With `num_buffers`.
    Modern,
}

impl HeaderLen {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Legacy => 10,
            Self::Modern => 12,
        }
    }
}

/// Offset of `flags`: u8.
pub const FLAGS_OFFSET: usize = 0;
/// Offset of `num_buffers`: le16, in the modern header only.
pub const NUM_BUFFERS_OFFSET: usize = 10;

/// Shortest frame that carries anything: the Ethernet header.
pub const MIN_FRAME: usize = 14;
/// Longest frame (virtio 1.2, 5.1.6.3.1): a 64 KiB packet behind an Ethernet header. A VLAN tag
/// may come on top.
pub const MAX_FRAME: usize = 65550 + VLAN_TAG;
/// An 802.1Q tag.
pub const VLAN_TAG: usize = 4;

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use virtio_bindings::virtio_net::{virtio_net_hdr, virtio_net_hdr_mrg_rxbuf};

    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(HeaderLen::Legacy.bytes(), size_of::<virtio_net_hdr>());
        assert_eq!(
            HeaderLen::Modern.bytes(),
            size_of::<virtio_net_hdr_mrg_rxbuf>()
        );
        assert_eq!(FLAGS_OFFSET, offset_of!(virtio_net_hdr, flags));
        let num_buffers = offset_of!(virtio_net_hdr_mrg_rxbuf, num_buffers);
        assert_eq!(NUM_BUFFERS_OFFSET, num_buffers);
    }
}

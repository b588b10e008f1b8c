//! Which queue does what (virtio 1.2, 5.1.2): receive 0, transmit 0, receive 1, transmit 1, ...,
//! and the control queue after the last pair.

use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ};

use crate::features::Negotiated;

/// Most queue pairs: a session has at most 64 queues, one of them for control.
pub const MAX_PAIRS: usize = 31;

/// A queue's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames to the guest, on this pair.
    Receive(usize),
    /// Frames from the guest, on this pair.
    Transmit(usize),
    /// Commands.
    Control,
}

/// Queues of a device with `pairs` pairs.
pub fn queues(pairs: usize) -> usize {
    2 * pairs + 1
}

/// The role of queue `index`. The driver that did not agree on several pairs finds the control
/// queue right after the first.
pub fn role(index: usize, pairs: usize, agreed: Negotiated) -> Role {
    let in_use = if agreed.has(VIRTIO_NET_F_MQ) {
        pairs
    } else {
        1
    };
    let control = agreed.has(VIRTIO_NET_F_CTRL_VQ) && index == 2 * in_use;
    match (index / 2, index % 2) {
        _ if control || index >= 2 * pairs => Role::Control,
        (pair, 0) => Role::Receive(pair),
        (pair, _) => Role::Transmit(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::bits;

    #[test]
    fn the_control_queue_follows_the_agreed_pairs() {
        let control = bits([VIRTIO_NET_F_CTRL_VQ]);
        let several = control | bits([VIRTIO_NET_F_MQ]);
        let role = |index, features| role(index, 2, Negotiated::new(features));
        assert_eq!(role(0, several), Role::Receive(0));
        assert_eq!(role(1, several), Role::Transmit(0));
        assert_eq!(role(2, several), Role::Receive(1));
        assert_eq!(role(4, several), Role::Control);
        assert_eq!(role(2, control), Role::Control);
        // QEMU keeps the control queue to itself and starts pairs by enabling their rings.
        assert_eq!(role(2, 0), Role::Receive(1));
        assert_eq!(role(3, bits([VIRTIO_NET_F_MQ])), Role::Transmit(1));
    }
}

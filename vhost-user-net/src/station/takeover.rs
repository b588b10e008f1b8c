//! A driver whose rings go on in another connection, or in another process.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use vhost_daemon::queue::RingIdentity;
use virtio_bindings::virtio_net::VIRTIO_NET_F_CTRL_VLAN;

use super::Station;
use crate::backend::Port;
use crate::driver::{Beginning, Choices};
use crate::features::Negotiated;
use crate::filter::Wishes;

impl<P: Port> Station<P> {
    /// The control ring begins to run, of `size` entries and with the used index `used`. A driver that has asked
    /// for something before does not ask again.
    pub fn commands_begin(&self, ring: &RingIdentity, size: u16, used: u16) {
        let agreed = self.negotiated();
        let begun = self.driver.begin(agreed.bits(), ring, size, used);
        let is_first = self.is_first.swap(false, Ordering::Relaxed);
        match &begun {
            Beginning::Known | Beginning::New => return,
            Beginning::Old(choices) => self.take_up(agreed, choices),
            Beginning::Unknown => self.take_up(
                agreed,
                &Choices {
                    pairs: None,
                    offloads: agreed.guest_offloads(),
                    wishes: Wishes::unknown(agreed.has(VIRTIO_NET_F_CTRL_VLAN)),
                },
            ),
        }
        if !is_first {
            return;
        }
        self.announce.store(true, Ordering::Relaxed);
        self.tell_of_change();
        if let Some(suppressed) = self.drivers.permit() {
            match begun {
                Beginning::Old(_) => tracing::info!(suppressed, "the driver goes on as it was"),
                _ => tracing::warn!(
                    suppressed,
                    "the driver goes on, and what it asked for is not known (--state-dir): it gets all frames"
                ),
            }
        }
    }

    /// Sets all that a driver can set.
    fn take_up(&self, agreed: Negotiated, choices: &Choices) {
        self.set_offloads(choices.offloads & agreed.guest_offloads() & self.port.offloads());
        self.filter
            .change(|wishes| *wishes = choices.wishes.clone());
        if let Some(mac) = choices.wishes.own() {
            *self.mac.lock().unwrap_or_else(PoisonError::into_inner) = Some(mac);
        }
        self.use_pairs(choices.pairs);
    }

    /// A command is about to be answered with the used index `used`: what it set outlives this connection,
    /// and with a state directory this process.
    pub fn answering(&self, used: u16) {
        let choices = Choices {
            pairs: self.pairs().active,
            offloads: *self.offloads.lock().unwrap_or_else(PoisonError::into_inner),
            wishes: Wishes::clone(&self.filter.wishes()),
        };
        self.driver
            .remember(self.negotiated().bits(), used, choices);
    }
}

//! Which frames the driver wants: receive modes, addresses and VLANs (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3).

mod words;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_CTRL_RX_NOBCAST,
    VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_PROMISC,
};

use crate::config::Mac;

/// Bytes of a frame that a filter has to see: both addresses and a VLAN tag.
pub const FRONT: usize = 16;
/// More addresses of a kind than this are as good as all.
const MOST_ADDRESSES: usize = 1024;
/// 802.1Q numbers have twelve bits.
const VLANS: usize = 4096;

/// What the driver wants to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    promiscuous: bool,
    all_unicast: bool,
    all_multicast: bool,
    no_unicast: bool,
    no_multicast: bool,
    no_broadcast: bool,
    /// The device's own address; without, every station's is.
    own: Option<Mac>,
    unicast: HashSet<[u8; 6]>,
    multicast: HashSet<[u8; 6]>,
    unicast_overflow: bool,
    multicast_overflow: bool,
    /// Wanted VLANs as bits; `None` while the driver filters none.
    vlans: Option<Box<[u64; VLANS / 64]>>,
}

impl Wishes {
    /// Those of a driver that has said nothing yet: it gets everything. With VLAN filtering agreed on
    /// it gets no tagged frames once it has said that it does not want everything.
    pub fn new(own: Option<Mac>, filters_vlans: bool) -> Self {
        Self {
            promiscuous: true,
            all_unicast: false,
            all_multicast: false,
            no_unicast: false,
            no_multicast: false,
            no_broadcast: false,
            own,
            unicast: HashSet::new(),
            multicast: HashSet::new(),
            unicast_overflow: false,
            multicast_overflow: false,
            vlans: filters_vlans.then(|| Box::new([0; VLANS / 64])),
        }
    }

    /// Those of a driver that has said what it wants, and nobody knows what: it gets everything, and once it
    /// says that it does not want everything, frames to every station and of every VLAN until it names its
    /// address, or VLANs that it does not want any more.
    pub fn unknown(filters_vlans: bool) -> Self {
        Self {
            vlans: filters_vlans.then(|| Box::new([u64::MAX; VLANS / 64])),
            ..Self::new(None, false)
        }
    }

    /// The device's own address, where it is known.
    pub fn own(&self) -> Option<Mac> {
        self.own
    }

    /// `VIRTIO_NET_CTRL_RX_*`.
    pub fn set_mode(&mut self, mode: u8, on: bool) {
        let field = match u32::from(mode) {
            VIRTIO_NET_CTRL_RX_PROMISC => &mut self.promiscuous,
            VIRTIO_NET_CTRL_RX_ALLMULTI => &mut self.all_multicast,
            VIRTIO_NET_CTRL_RX_ALLUNI => &mut self.all_unicast,
            VIRTIO_NET_CTRL_RX_NOMULTI => &mut self.no_multicast,
            VIRTIO_NET_CTRL_RX_NOUNI => &mut self.no_unicast,
            VIRTIO_NET_CTRL_RX_NOBCAST => &mut self.no_broadcast,
            _ => return,
        };
        *field = on;
    }

    /// `VIRTIO_NET_CTRL_MAC_TABLE_SET`.
    pub fn set_table(&mut self, unicast: &[Mac], multicast: &[Mac]) {
        let table = |macs: &[Mac]| macs.iter().take(MOST_ADDRESSES).map(|mac| mac.0).collect();
        self.unicast = table(unicast);
        self.multicast = table(multicast);
        self.unicast_overflow = unicast.len() > MOST_ADDRESSES;
        self.multicast_overflow = multicast.len() > MOST_ADDRESSES;
    }

    /// `VIRTIO_NET_CTRL_MAC_ADDR_SET`.
    pub fn set_own(&mut self, own: Mac) {
        self.own = Some(own);
    }

    /// `VIRTIO_NET_CTRL_VLAN_ADD` and `_DEL`.
    pub fn set_vlan(&mut self, id: u16, wanted: bool) {
        let vlans = self.vlans.get_or_insert_with(|| Box::new([0; VLANS / 64]));
        if let Some(word) = vlans.get_mut(usize::from(id) / 64) {
            let bit = 1 << (id % 64);
            *word = if wanted { *word | bit } else { *word & !bit };
        }
    }

    /// Whether the driver wants a frame that begins like that.
    pub fn want(&self, frame: &[u8; FRONT]) -> bool {
        let (to, _) = frame.split_first_chunk::<6>().unwrap_or((&[0; 6], &[]));
        let tagged = frame[12..14] == [0x81, 0];
        self.promiscuous
            || ((!tagged || self.wants_vlan(u16::from_be_bytes([frame[14], frame[15]])))
                && self.wants_address(*to))
    }

    fn wants_vlan(&self, tag: u16) -> bool {
        let id = tag & 0x0fff;
        let Some(vlans) = &self.vlans else {
            return true;
        };
        let word = vlans.get(usize::from(id) / 64).copied().unwrap_or_default();
        word & 1 << (id % 64) != 0
    }

    fn wants_address(&self, to: [u8; 6]) -> bool {
        if to == [0xff; 6] {
            return !self.no_broadcast;
        }
        if to[0] & 1 != 0 {
            let all = self.all_multicast || self.multicast_overflow;
            return !self.no_multicast && (all || self.multicast.contains(&to));
        }
        let own = self.own.is_none_or(|own| own.0 == to);
        let all = self.all_unicast || self.unicast_overflow;
        !self.no_unicast && (all || own || self.unicast.contains(&to))
    }

    /// Whether there is nothing to look at.
    pub fn want_all(&self) -> bool {
        self.promiscuous
    }
}

/// The driver's wishes, changed by one thread and looked at by several.
#[derive(Debug)]
pub struct Filter {
    wishes: Mutex<Arc<Wishes>>,
    version: AtomicU64,
}

/// A reader's view of a filter, renewed when it has changed.
#[derive(Debug)]
pub struct FilterView {
    wishes: Arc<Wishes>,
    version: u64,
}

impl Filter {
    /// With these wishes.
    pub fn new(wishes: Wishes) -> Self {
        Self {
            wishes: Mutex::new(Arc::new(wishes)),
            version: AtomicU64::new(0),
        }
    }

    /// Changes the wishes.
    pub fn change(&self, change: impl FnOnce(&mut Wishes)) {
        change(Arc::make_mut(&mut self.lock()));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A view of it.
    pub fn view(&self) -> FilterView {
        let version = self.version.load(Ordering::Acquire);
        FilterView {
            wishes: self.wishes(),
            version,
        }
    }

    /// The wishes as they are now.
    pub fn wishes(&self) -> Arc<Wishes> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Wishes>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FilterView {
    /// The wishes as they are now.
    pub fn current(&mut self, filter: &Filter) -> &Arc<Wishes> {
        if filter.version.load(Ordering::Acquire) != self.version {
            *self = filter.view();
        }
        &self.wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);
    const ALL: Mac = Mac([0xff; 6]);

    fn frame(to: Mac, vlan: Option<u16>) -> [u8; FRONT] {
        let mut frame = [0; FRONT];
        frame[..6].copy_from_slice(&to.0);
        if let Some(id) = vlan {
            frame[12..14].copy_from_slice(&[0x81, 0]);
            // Priority bits do not count.
            frame[14..].copy_from_slice(&(id | 0xe000).to_be_bytes());
        }
        frame
    }

    fn wanted(wishes: &Wishes) -> [bool; 4] {
        [OWN, OTHER, GROUP, ALL].map(|to| wishes.want(&frame(to, None)))
    }

    #[test]
    fn modes_do_what_they_say() {
        let mut wishes = Wishes::new(Some(OWN), false);
        assert_eq!(wanted(&wishes), [true; 4]);
        wishes.set_mode(0, false);
        assert_eq!(wanted(&wishes), [true, false, false, true]);
        for (mode, expected) in [
            (1, [true, false, true, true]),
            (2, [true, true, false, true]),
            (3, [true, false, false, true]),
            (4, [false, false, false, true]),
            (5, [true, false, false, false]),
        ] {
            wishes.set_mode(mode, true);
            assert_eq!(wanted(&wishes), expected, "mode {mode}");
            wishes.set_mode(mode, false);
        }
    }

    #[test]
    fn tables_replace_each_other() {
        let mut wishes = Wishes::new(Some(OWN), false);
        wishes.set_mode(0, false);
        wishes.set_table(&[OTHER], &[GROUP]);
        assert_eq!(wanted(&wishes), [true; 4]);
        wishes.set_table(&[], &[]);
        assert_eq!(wanted(&wishes), [true, false, false, true]);
        wishes.set_own(OTHER);
        assert_eq!(wanted(&wishes), [false, true, false, true]);
        wishes.set_table(&vec![GROUP; MOST_ADDRESSES + 1], &[]);
        assert_eq!(wanted(&wishes), [true, true, false, true]);
    }

    #[test]
    fn tagged_frames_pass_with_their_vlan() {
        let tagged = |wishes: &Wishes, id| wishes.want(&frame(OWN, Some(id)));
        let mut wishes = Wishes::new(Some(OWN), true);
        assert!(tagged(&wishes, 5));
        wishes.set_mode(0, false);
        assert!(!tagged(&wishes, 5));
        wishes.set_vlan(5, true);
        wishes.set_vlan(4095, true);
        assert!(tagged(&wishes, 5) && tagged(&wishes, 4095) && !tagged(&wishes, 6));
        wishes.set_vlan(5, false);
        assert!(!tagged(&wishes, 5));
        assert!(tagged(
            &{
                let mut none = Wishes::new(Some(OWN), false);
                none.set_mode(0, false);
                none
            },
            5
        ));
    }

    #[test]
    fn a_driver_nobody_knows_loses_nothing() {
        let tagged = |wishes: &Wishes, id| wishes.want(&frame(OTHER, Some(id)));
        let mut wishes = Wishes::unknown(true);
        assert!(wishes.want_all());
        // What Linux says when a group is joined.
        wishes.set_mode(0, false);
        wishes.set_table(&[], &[GROUP]);
        assert_eq!(wanted(&wishes), [true; 4]);
        assert!(tagged(&wishes, 5) && tagged(&wishes, 4095));
        wishes.set_vlan(6, true);
        wishes.set_vlan(5, false);
        assert!(!tagged(&wishes, 5) && tagged(&wishes, 6) && tagged(&wishes, 7));
        wishes.set_own(OWN);
        assert_eq!(wanted(&wishes), [true, false, true, true]);
    }

    #[test]
    fn views_follow_changes() {
        let filter = Filter::new(Wishes::new(Some(OWN), false));
        let mut view = filter.view();
        assert!(view.current(&filter).want_all());
        filter.change(|wishes| wishes.set_mode(0, false));
        assert!(!view.current(&filter).want_all());
    }
}

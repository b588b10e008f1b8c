//! Work on a frame that its sender may leave to the receiver.

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// A set of offloads. The bits are those of `TUNSETOFFLOAD` (linux/if_tun.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// Every frame comes whole.
    pub const NONE: Self = Self(0);
    /// The checksum of the transport header.
    pub const CHECKSUM: Self = Self(libc::TUN_F_CSUM);
    /// Cutting TCP over IPv4 into segments.
    pub const TSO4: Self = Self(libc::TUN_F_TSO4);
    /// Cutting TCP over IPv6 into segments.
    pub const TSO6: Self = Self(libc::TUN_F_TSO6);
    /// Segmentation of TCP with explicit congestion notification.
    pub const TSO_ECN: Self = Self(libc::TUN_F_TSO_ECN);
    /// Fragmenting UDP.
    pub const UFO: Self = Self(libc::TUN_F_UFO);
    /// Cutting UDP over IPv4 into datagrams.
    pub const USO4: Self = Self(libc::TUN_F_USO4);
    /// Cutting UDP over IPv6 into datagrams.
    pub const USO6: Self = Self(libc::TUN_F_USO6);
    /// Both kinds of USO: the kernel takes only the two together.
    pub const USO: Self = Self(libc::TUN_F_USO4 | libc::TUN_F_USO6);
    /// What makes frames larger than the MTU.
    pub const SEGMENTATION: Self = Self(
        libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_UFO | libc::TUN_F_USO4 | libc::TUN_F_USO6,
    );

    const NAMES: [(Self, &'static str); 7] = [
        (Self::CHECKSUM, "checksum"),
        (Self::TSO4, "tso4"),
        (Self::TSO6, "tso6"),
        (Self::TSO_ECN, "ecn"),
        (Self::UFO, "ufo"),
        (Self::USO4, "uso4"),
        (Self::USO6, "uso6"),
    ];

    /// As [`bits`](Self::bits) gave them.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether all of `other` are in the set.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }

    /// Whether any of `other` are in the set.
    pub fn intersects(self, other: Self) -> bool {
        self & other != Self::NONE
    }

    /// As `TUNSETOFFLOAD` takes them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Offloads {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Offloads {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let mut separator = "";
        for (_, name) in Self::NAMES.iter().filter(|(bit, _)| self.contains(*bit)) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

//! The configuration space, `struct virtio_net_config` (virtio 1.2, 5.1.4).

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use virtio_bindings::virtio_net::{VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// Text or bytes that are no address of a single station.
#[derive(Debug, Error)]
#[error("'{0}' is not the address of a station such as 52:54:00:12:34:56")]
pub struct NotAMac(String);

impl Mac {
    /// Whether one station can have it: not a group's, not all zero.
    pub fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let refused = || NotAMac(text.to_owned());
        let mut mac = Self::default();
        let mut parts = text.split([':', '-']);
        for byte in &mut mac.0 {
            // A sign would pass from_str_radix.
            let hex = |part: &&str| part.len() == 2 && !part.starts_with('+');
            let part = parts.next().filter(hex);
            let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = value.ok_or_else(refused)?;
        }
        if parts.next().is_none() && mac.is_station() {
            Ok(mac)
        } else {
            Err(refused())
        }
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the configuration space says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigSpace {
    /// `mac`.
    pub mac: Mac,
    /// `VIRTIO_NET_S_LINK_UP` of `status`.
    pub link_up: bool,
    /// `VIRTIO_NET_S_ANNOUNCE` of `status`.
    pub announce: bool,
    /// `max_virtqueue_pairs`.
    pub max_pairs: u16,
    /// `mtu`.
    pub mtu: u16,
}

impl ConfigSpace {
    /// Its bytes as the driver reads them.
    pub fn to_bytes(self) -> Vec<u8> {
        let bit = |set, bit: u32| if set { bit } else { 0 };
        let status =
            bit(self.link_up, VIRTIO_NET_S_LINK_UP) | bit(self.announce, VIRTIO_NET_S_ANNOUNCE);
        let mut bytes = self.mac.0.to_vec();
        bytes.extend(u16::try_from(status).unwrap_or_default().to_le_bytes());
        bytes.extend(self.max_pairs.to_le_bytes());
        bytes.extend(self.mtu.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let config = ConfigSpace {
            mac: "52:54:00:12:34:56".parse().unwrap(),
            link_up: true,
            announce: true,
            max_pairs: 0x0102,
            mtu: 0x2328,
        };
        let bytes = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 3, 0, 2, 1, 0x28, 0x23];
        assert_eq!(config.to_bytes(), bytes);
        assert_eq!(ConfigSpace::default().to_bytes(), [0; 12]);
    }

    #[test]
    fn addresses_of_stations_only() {
        let mac: Mac = "52-54-00-ab-CD-ef".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52:54:00:12:34:xx",
            "+2:54:00:12:34:56",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }
}

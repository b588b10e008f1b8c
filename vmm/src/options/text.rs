//! How what is described is read from a file or a request, and written into one.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DeviceDescription;
use super::device::Properties;
use crate::memory::ByteSize;
use crate::virtio::Kind;

/// A value that means the same with and without quotes, as it is without them on the command line.
struct Scalar(String);

/// A size by itself: `"64M"`, or a number of bytes.
pub(crate) struct Size(pub(crate) ByteSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Scalar(text) = Scalar::deserialize(from)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyScalar;
        impl Visitor<'_> for AnyScalar {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a whole number")
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        from.deserialize_any(AnyScalar)
    }
}

/// Sizes: `"4G"`, or a number of bytes.
pub(super) mod size {
    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<ByteSize>, D::Error> {
        Size::deserialize(from).map(|Size(size)| Some(size))
    }

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(in super::super) fn serialize<S: Serializer>(
        size: &Option<ByteSize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        size.map(|size| size.to_string()).serialize(to)
    }
}

/// Reads one device. A mistake is told where it is: at the name, or at the value.
struct OneDevice(Kind);

impl<'de> DeserializeSeed<'de> for OneDevice {
    type Value = DeviceDescription;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneDevice {
    type Value = DeviceDescription;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device's properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut properties = Properties::new(self.0);
        while let Some(name) = map.next_key_seed(Name(&mut properties))? {
            map.next_value_seed(Value(&mut properties, name))?;
        }
        properties.finish().map_err(A::Error::custom)
    }
}

struct Name<'a>(&'a mut Properties);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let Scalar(name) = Scalar::deserialize(from)?;
        self.0.begin(&name).map_err(D::Error::custom)
    }
}

struct Value<'a>(&'a mut Properties, &'static str);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        let Scalar(value) = Scalar::deserialize(from)?;
        self.0.set(self.1, &value).map_err(D::Error::custom)
    }
}

/// Reads a device by its kind's word: `{"disk": {"socket": "..."}}`.
pub(super) struct AnyDevice(pub(super) DeviceDescription);

impl<'de> Deserialize<'de> for AnyDevice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ByKind;
        impl<'de> Visitor<'de> for ByKind {
            type Value = AnyDevice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one device: disk, net, fs or vsock with its properties")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyDevice, A::Error> {
                let word: Option<String> = map.next_key()?;
                let kinds = [Kind::Block, Kind::Net, Kind::Fs, Kind::Vsock];
                let kind = kinds
                    .into_iter()
                    .find(|it| word.as_deref() == Some(it.word()));
                let kind =
                    kind.ok_or_else(|| A::Error::custom("neither disk, net, fs nor vsock"))?;
                let device = map.next_value_seed(OneDevice(kind))?;
                if map.next_key::<Scalar>()?.is_some() {
                    return Err(A::Error::custom("more than one device"));
                }
                Ok(AnyDevice(device))
            }
        }
        from.deserialize_map(ByKind)
    }
}

struct Devices(Kind);

impl<'de> Visitor<'de> for Devices {
    type Value = Vec<DeviceDescription>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut devices = Vec::new();
        while let Some(device) = list.next_element_seed(OneDevice(self.0))? {
            devices.push(device);
        }
        Ok(devices)
    }
}

struct AsMap<'a>(&'a DeviceDescription);

impl Serialize for AsMap<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let properties = self.0.properties();
        let mut map = to.serialize_map(Some(properties.len()))?;
        for (name, value) in properties {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

pub(super) fn write_all<S: Serializer>(
    devices: &[DeviceDescription],
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(devices.len()))?;
    for device in devices {
        list.serialize_element(&AsMap(device))?;
    }
    list.end()
}

#[expect(clippy::ref_option, reason = "serde hands over the field")]
pub(super) fn write_one<S: Serializer>(
    device: &Option<DeviceDescription>,
    to: S,
) -> Result<S::Ok, S::Error> {
    device.as_ref().map(AsMap).serialize(to)
}

type Listed<E> = Result<Vec<DeviceDescription>, E>;

pub(super) fn disks<'de, D: Deserializer<'de>>(from: D) -> Listed<D::Error> {
    from.deserialize_seq(Devices(Kind::Block))
}

pub(super) fn nets<'de, D: Deserializer<'de>>(from: D) -> Listed<D::Error> {
    from.deserialize_seq(Devices(Kind::Net))
}

pub(super) fn file_systems<'de, D: Deserializer<'de>>(from: D) -> Listed<D::Error> {
    from.deserialize_seq(Devices(Kind::Fs))
}

pub(super) fn vsock<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<DeviceDescription>, D::Error> {
    OneDevice(Kind::Vsock).deserialize(from).map(Some)
}

//! Devices as described: `socket=PATH,NAME=VALUE` as a flag, the same names as keys in a file.

use std::collections::BTreeSet;

use super::error::DeviceError;
use crate::vhost_user::FrontEndConfig;
use crate::virtio::Kind;

/// A device, and what the control plane calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    /// Its name; none is chosen for it.
    pub id: Option<String>,
    /// What it is.
    pub front_end: FrontEndConfig,
}

/// Queues at most: more than processors bring nothing, and vectors are counted.
const MOST_QUEUES: u16 = 64;
/// Entries of a queue at most (virtio 1.2, 2.7).
const MOST_ENTRIES: u16 = 32768;
const DEFAULT_ENTRIES: u16 = 256;
/// Bytes of a file system's name (virtio 1.2, 5.11.4).
const LONGEST_TAG: usize = 36;
/// Numbers below are not for guests (virtio 1.2, 5.10.4).
const FIRST_CID: u64 = 3;
/// Bytes of a device's name.
const LONGEST_ID: usize = 64;

/// Words of a file system's, a network interface's, ... description.
const ALL: &[&str] = &["socket", "id", "queue-size"];

/// Properties that only this kind of device has.
fn own(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Block => &["queues"],
        Kind::Net => &["queues", "mac"],
        Kind::Fs => &["queues", "tag"],
        Kind::Vsock => &["cid"],
        Kind::Rng | Kind::Balloon => &[],
    }
}

/// A description that is being put together.
pub(super) struct Properties {
    described: DeviceDescription,
    given: BTreeSet<&'static str>,
}

impl Properties {
    pub(super) fn new(kind: Kind) -> Self {
        let front_end = FrontEndConfig {
            kind,
            socket: Default::default(),
            queues: 1,
            queue_size: DEFAULT_ENTRIES,
            tag: None,
            mac: None,
            cid: None,
        };
        Self {
            described: DeviceDescription {
                id: None,
                front_end,
            },
            given: BTreeSet::new(),
        }
    }

    /// A property of this device that was not given yet, by its name.
    pub(super) fn begin(&mut self, name: &str) -> Result<&'static str, DeviceError> {
        let own = own(self.described.front_end.kind);
        let known = ALL.iter().chain(own).find(|known| **known == name);
        let known = *known.ok_or_else(|| DeviceError::Unknown {
            name: name.to_owned(),
            known: [ALL, own].concat().join(", "),
        })?;
        if self.given.insert(known) {
            Ok(known)
        } else {
            Err(DeviceError::Twice(known))
        }
    }

    /// Sets what [`begin`](Self::begin) gave.
    pub(super) fn set(&mut self, name: &'static str, value: &str) -> Result<(), DeviceError> {
        let device = &mut self.described.front_end;
        match name {
            "socket" => device.socket = value.into(),
            "id" => self.described.id = Some(id(value)?),
            "queue-size" => device.queue_size = entries(value)?,
            "queues" => device.queues = queues(value)?,
            "mac" => device.mac = Some(mac(value)?),
            "tag" => device.tag = Some(tag(value)?),
            _ => device.cid = Some(cid(value)?),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<DeviceDescription, DeviceError> {
        if self.described.front_end.socket.as_os_str().is_empty() {
            return Err(DeviceError::NoSocket);
        }
        Ok(self.described)
    }
}

impl DeviceDescription {
    /// How messages begin that are about it.
    #[must_use]
    pub fn label(&self) -> String {
        let front_end = &self.front_end;
        let socket = front_end.socket.display();
        format!("--{} socket={socket}", front_end.kind.word())
    }

    /// What makes it so, but for what is as it would be anyway.
    pub(super) fn properties(&self) -> Vec<(&'static str, String)> {
        let device = &self.front_end;
        let default = Properties::new(device.kind).described.front_end;
        let mut properties = vec![("socket", device.socket.display().to_string())];
        let mut add = |name, value: Option<String>| {
            properties.extend(value.map(|value| (name, value)));
        };
        let unless = |value: u16, usual| (value != usual).then(|| value.to_string());
        add("id", self.id.clone());
        add("queues", unless(device.queues, default.queues));
        add("queue-size", unless(device.queue_size, default.queue_size));
        add("tag", device.tag.clone());
        add("cid", device.cid.map(|cid| cid.to_string()));
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        add("mac", device.mac.map(mac));
        properties
    }
}

/// A flag's value.
pub(super) fn typed(kind: Kind, typed: &str) -> Result<DeviceDescription, DeviceError> {
    let mut properties = Properties::new(kind);
    for property in typed.split(',') {
        let (name, value) = property
            .split_once('=')
            .ok_or_else(|| DeviceError::NotPair(property.to_owned()))?;
        let name = properties.begin(name)?;
        properties.set(name, value)?;
    }
    properties.finish()
}

fn queues(value: &str) -> Result<u16, DeviceError> {
    let wanted = "1 to 64";
    let name = "queues";
    let count = value.parse().ok();
    count
        .filter(|count| (1..=MOST_QUEUES).contains(count))
        .ok_or(DeviceError::Value { name, wanted })
}

fn entries(value: &str) -> Result<u16, DeviceError> {
    let wanted = "a power of two from 2 to 32768";
    let name = "queue-size";
    let size = value.parse().ok();
    size.filter(|size: &u16| size.is_power_of_two() && (2..=MOST_ENTRIES).contains(size))
        .ok_or(DeviceError::Value { name, wanted })
}

fn mac(value: &str) -> Result<[u8; 6], DeviceError> {
    let wanted = "an address of one interface, as 02:00:00:00:00:01";
    let error = DeviceError::Value {
        name: "mac",
        wanted,
    };
    let byte = |text: &str| {
        let is_hex = text.len() == 2 && text.bytes().all(|it| it.is_ascii_hexdigit());
        u8::from_str_radix(text, 16).ok().filter(|_| is_hex)
    };
    let bytes: Option<Vec<u8>> = value.split(':').map(byte).collect();
    let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
    // An odd first byte addresses a group.
    bytes.filter(|bytes| bytes[0] & 1 == 0).ok_or(error)
}

fn tag(value: &str) -> Result<String, DeviceError> {
    if value.is_empty() || value.len() > LONGEST_TAG || value.contains('\0') {
        return Err(DeviceError::Value {
            name: "tag",
            wanted: "1 to 36 bytes",
        });
    }
    Ok(value.to_owned())
}

fn cid(value: &str) -> Result<u64, DeviceError> {
    let number = value.parse().ok();
    number
        .filter(|number| (FIRST_CID..u64::from(u32::MAX)).contains(number))
        .ok_or(DeviceError::Value {
            name: "cid",
            wanted: "a number from 3 to 4294967294",
        })
}

/// Names are a part of the API's addresses.
fn id(value: &str) -> Result<String, DeviceError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || value.len() > LONGEST_ID || !value.bytes().all(is_plain) {
        return Err(DeviceError::Value {
            name: "id",
            wanted: "1 to 64 letters, digits, dots, dashes or underscores",
        });
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_described_by_properties() {
        let net = "socket=/run/n,mac=02:00:00:00:00:0a,queues=2,queue-size=1024,id=lan";
        let described = typed(Kind::Net, net).unwrap();
        assert_eq!(described.id.as_deref(), Some("lan"));
        assert_eq!(described.label(), "--net socket=/run/n");
        let net = described.front_end;
        assert_eq!(net.socket.to_str(), Some("/run/n"));
        assert_eq!((net.queues, net.queue_size), (2, 1024));
        assert_eq!(net.mac, Some([2, 0, 0, 0, 0, 10]));
        let fs = typed(Kind::Fs, "tag=root,socket=/run/f").unwrap();
        assert_eq!(fs.front_end.tag.as_deref(), Some("root"));
        let vsock = typed(Kind::Vsock, "socket=/run/v,cid=3").unwrap();
        assert_eq!(vsock.front_end.cid, Some(3));
    }

    #[test]
    fn mistakes_are_named() {
        let sentence = |kind, text: &str| typed(kind, text).unwrap_err().to_string();
        let block = |typed: &str| sentence(Kind::Block, typed);
        assert_eq!(block(""), "\"\" is not NAME=VALUE");
        assert_eq!(block("queues=1"), "socket=PATH is missing");
        assert_eq!(
            block("socket=/a,mac=1"),
            "there is no mac= here, only socket, id, queue-size, queues"
        );
        assert_eq!(block("socket=/a,socket=/b"), "socket= is given twice");
        assert_eq!(block("socket=/a,queues=65"), "queues= wants 1 to 64");
        assert_eq!(
            block("socket=/a,queue-size=100"),
            "queue-size= wants a power of two from 2 to 32768"
        );
        for typed in [
            "1:2:3:4:5:6",
            "01:00:00:00:00:00",
            "02:00:00:00:00",
            "+2:00:00:00:00:00",
        ] {
            let said = sentence(Kind::Net, &format!("socket=/a,mac={typed}"));
            assert!(said.starts_with("mac= wants"), "{said}");
        }
        assert!(sentence(Kind::Fs, &format!("tag={}", "x".repeat(37))).contains("36"));
        assert!(sentence(Kind::Vsock, "socket=/a,cid=2").contains("from 3"));
        assert!(block("socket=/a,id=a/b").starts_with("id= wants"));
    }
}

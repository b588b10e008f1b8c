//! Devices as typed: `socket=PATH,NAME=VALUE`.

use super::OptionsError;
use super::error::DeviceError;
use crate::vhost_user::FrontEndConfig;
use crate::virtio::Kind;

/// A device, and how it was typed: what messages about it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The option with its value.
    pub option: String,
    /// What it means.
    pub device: FrontEndConfig,
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

pub(super) fn parse_all(
    typed: impl IntoIterator<Item = (Kind, Vec<String>)>,
) -> Result<Vec<Named>, OptionsError> {
    let each =
        |(kind, typed): (Kind, Vec<String>)| typed.into_iter().map(move |typed| parse(kind, typed));
    typed.into_iter().flat_map(each).collect()
}

fn parse(kind: Kind, typed: String) -> Result<Named, OptionsError> {
    let option = match kind {
        Kind::Block => "--disk",
        Kind::Net => "--net",
        Kind::Fs => "--fs",
        Kind::Vsock => "--vsock",
        Kind::Rng => "--rng",
    };
    match describe(kind, &typed) {
        Ok(device) => Ok(Named {
            option: format!("{option} {typed}"),
            device,
        }),
        Err(reason) => Err(OptionsError::Device {
            option,
            typed,
            reason,
        }),
    }
}

fn describe(kind: Kind, typed: &str) -> Result<FrontEndConfig, DeviceError> {
    let mut device = FrontEndConfig {
        kind,
        socket: Default::default(),
        queues: 1,
        queue_size: DEFAULT_ENTRIES,
        tag: None,
        mac: None,
        cid: None,
    };
    for property in typed.split(',') {
        let (name, value) = property
            .split_once('=')
            .ok_or_else(|| DeviceError::NotPair(property.to_owned()))?;
        match (name, kind) {
            ("socket", _) => device.socket = value.into(),
            ("queue-size", _) => device.queue_size = entries(value)?,
            ("queues", Kind::Block | Kind::Net | Kind::Fs) => device.queues = queues(value)?,
            ("mac", Kind::Net) => device.mac = Some(mac(value)?),
            ("tag", Kind::Fs) => device.tag = Some(tag(value)?),
            ("cid", Kind::Vsock) => device.cid = Some(cid(value)?),
            _ => return Err(DeviceError::Unknown(name.to_owned())),
        }
    }
    if device.socket.as_os_str().is_empty() {
        return Err(DeviceError::NoSocket);
    }
    Ok(device)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_described_by_properties() {
        let net = "socket=/run/n,mac=02:00:00:00:00:0a,queues=2,queue-size=1024";
        let net = describe(Kind::Net, net).unwrap();
        assert_eq!(net.socket.to_str(), Some("/run/n"));
        assert_eq!((net.queues, net.queue_size), (2, 1024));
        assert_eq!(net.mac, Some([2, 0, 0, 0, 0, 10]));
        let fs = describe(Kind::Fs, "tag=root,socket=/run/f").unwrap();
        assert_eq!(fs.tag.as_deref(), Some("root"));
        let vsock = describe(Kind::Vsock, "socket=/run/v,cid=3").unwrap();
        assert_eq!(vsock.cid, Some(3));
    }

    #[test]
    fn mistakes_are_named() {
        let sentence = |kind, typed: &str| describe(kind, typed).unwrap_err().to_string();
        let block = |typed: &str| sentence(Kind::Block, typed);
        assert_eq!(block(""), "\"\" is not NAME=VALUE");
        assert_eq!(block("queues=1"), "socket=PATH is missing");
        assert_eq!(block("socket=/a,mac=1"), "there is no mac= here");
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
    }
}

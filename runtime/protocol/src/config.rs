//! What a guest is told before it starts.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::RawText;

/// Everything the guest's init needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// The guest's host name.
    pub hostname: String,
    /// Where `/` comes from.
    pub root: Root,
    /// Directories of the host within the root, in the order they are mounted.
    pub directories: Vec<Directory>,
    /// Data disks, in the order they were given; for their names under `/dev/disk/by-id`.
    pub disks: Vec<Block>,
    /// The network interface to configure, if there is one.
    pub network: Option<Network>,
    /// The command to run.
    pub process: Process,
}

/// The guest's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Root {
    /// A virtio-fs device (virtio 1.2, section 5.11).
    Virtiofs {
        /// The device's tag.
        tag: String,
        /// Whether changes stay in the guest's memory, on top of a device that only reads.
        overlay: bool,
    },
    /// An ext4 file system that fills a virtio-blk device (virtio 1.2, section 5.2).
    Block(Block),
}

/// A virtio-fs device mounted below the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The device's tag.
    pub tag: String,
    /// Where it is mounted, an absolute path; made where it does not exist.
    pub path: RawText,
}

/// A virtio-blk device, found by the serial it answers to `VIRTIO_BLK_T_GET_ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The serial: at most 20 bytes.
    pub serial: String,
    /// Whether the device refuses writes.
    pub read_only: bool,
}

/// One configured network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The interface's hardware address, lower case with colons; it is found by this.
    pub mac: String,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 0 to 32.
    pub prefix: u8,
    /// The default route.
    pub gateway: Ipv4Addr,
    /// Largest packet, in bytes.
    pub mtu: u16,
}

/// The command, exactly as it shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Program and arguments; the program is looked up in `env`'s `PATH` when it has no slash.
    pub args: Vec<RawText>,
    /// The whole environment, names and values.
    pub env: Vec<(RawText, RawText)>,
    /// Working directory.
    pub cwd: RawText,
    /// A terminal of this size, or plain pipes.
    pub terminal: Option<WindowSize>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GuestConfig {
        GuestConfig {
            hostname: "ringside".into(),
            root: Root::Block(Block {
                serial: "root".into(),
                read_only: false,
            }),
            directories: vec![Directory {
                tag: "w0".into(),
                path: "/srv/data".into(),
            }],
            disks: vec![Block {
                serial: "disk0".into(),
                read_only: true,
            }],
            network: Some(Network {
                mac: "52:54:00:00:00:02".into(),
                address: Ipv4Addr::new(10, 0, 2, 2),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 0, 2, 1),
                mtu: 1500,
            }),
            process: Process {
                args: vec!["echo".into(), "a \"b\"\n".into()],
                env: vec![("PATH".into(), "/bin".into())],
                cwd: "/".into(),
                terminal: Some(WindowSize {
                    rows: 24,
                    columns: 80,
                }),
            },
        }
    }

    #[test]
    fn a_config_survives_json() {
        let json = serde_json::to_string(&config()).unwrap();
        assert_eq!(
            serde_json::from_str::<GuestConfig>(&json).unwrap(),
            config()
        );
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let json = serde_json::to_string(&config())
            .unwrap()
            .replacen('{', "{\"x\":1,", 1);
        assert!(serde_json::from_str::<GuestConfig>(&json).is_err());
    }
}

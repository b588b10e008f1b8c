//! What the device is: its options, its queues, its configuration space.

use std::path::PathBuf;

use virtio_bindings::{virtio_blk, virtio_net};

use super::FrontEndError;
use crate::virtio::Kind;

/// A device of a daemon, as the user wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontEndConfig {
    /// What it is.
    pub kind: Kind,
    /// Where its daemon listens.
    pub socket: PathBuf,
    /// Queues of a disk, pairs of queues of a network interface, request queues of a file system.
    pub queues: u16,
    /// Entries of each queue, a power of two.
    pub queue_size: u16,
    /// A file system's name for the guest, in place of the daemon's.
    pub tag: Option<String>,
    /// A network interface's address, in place of the daemon's.
    pub mac: Option<[u8; 6]>,
    /// A guest's number among socket addresses, in place of the daemon's.
    pub cid: Option<u64>,
}

/// Bytes of configuration that we know the meaning of (virtio 1.2: 5.1.4, 5.2.4, 5.10.4, 5.11.4).
const NET_CONFIG: usize = 12;
const BLOCK_CONFIG: usize = 60;
const VSOCK_CONFIG: usize = 8;
const FS_CONFIG: usize = 40;
/// Offsets in them.
const NET_MAX_PAIRS: usize = 8;
const BLOCK_NUM_QUEUES: usize = 34;
const FS_TAG: usize = 36;

const NET_MAC: u64 = 1 << virtio_net::VIRTIO_NET_F_MAC;
const NET_MQ: u64 = 1 << virtio_net::VIRTIO_NET_F_MQ;
const NET_CONTROL: u64 = 1 << virtio_net::VIRTIO_NET_F_CTRL_VQ;
const BLOCK_MQ: u64 = 1 << virtio_blk::VIRTIO_BLK_F_MQ;

/// Features that a guest may see: those of device types, indirect descriptors, EVENT_IDX, VERSION_1,
/// IN_ORDER, ORDER_PLATFORM. Not those of the back end's own (26, 30), of rings and transports that are
/// not ours (33, 34, 37-41), nor STANDBY (62), which wants a second device.
const PASSED: u64 = 0x00ff_ffff | 1 << 28 | 1 << 29 | 1 << 32 | 1 << 35 | 1 << 36 | 0xbffc << 48;

impl FrontEndConfig {
    /// Bytes of configuration to ask the daemon for.
    pub(super) fn config_len(&self) -> usize {
        match self.kind {
            Kind::Net => NET_CONFIG,
            Kind::Block => BLOCK_CONFIG,
            Kind::Vsock => VSOCK_CONFIG,
            Kind::Fs => FS_CONFIG,
            Kind::Rng | Kind::Balloon => 0,
        }
    }

    /// What the guest is offered of what the daemon offers.
    pub(super) fn features(&self, offered: u64) -> u64 {
        let mut features = offered & PASSED;
        match self.kind {
            Kind::Net => {
                if self.mac.is_some() {
                    features |= NET_MAC;
                }
                if self.queues == 1 {
                    features &= !NET_MQ;
                }
            }
            Kind::Block if self.queues == 1 => features &= !BLOCK_MQ,
            _ => {}
        }
        features
    }

    /// Queues in all, with these features.
    pub(super) fn queue_count(&self, features: u64) -> usize {
        let queues = usize::from(self.queues);
        match self.kind {
            Kind::Net => 2 * queues + usize::from(features & NET_CONTROL != 0),
            Kind::Block => queues,
            // The first one is for urgent requests.
            Kind::Fs => 1 + queues,
            // Receive, transmit, events.
            Kind::Vsock => 3,
            Kind::Rng | Kind::Balloon => 1,
        }
    }

    /// What the guest reads: the daemon's configuration, with what the options say instead.
    pub(super) fn config(&self, told: Option<Vec<u8>>) -> Result<Vec<u8>, FrontEndError> {
        let is_told = told.is_some();
        let mut config = told.unwrap_or_default();
        config.resize(self.config_len(), 0);
        let queues = self.queues.to_le_bytes();
        match self.kind {
            Kind::Net => {
                self.check_pairs(&config)?;
                if let Some(mac) = self.mac {
                    put(&mut config, 0, &mac);
                }
                put(&mut config, NET_MAX_PAIRS, &queues);
            }
            Kind::Block if is_told => put(&mut config, BLOCK_NUM_QUEUES, &queues),
            Kind::Block => return Err(FrontEndError::Missing("CONFIG, so its size is unknown")),
            Kind::Fs => {
                if let Some(tag) = &self.tag {
                    config[..FS_TAG].fill(0);
                    put(&mut config, 0, tag.as_bytes());
                } else if !is_told {
                    return Err(FrontEndError::Unknown("tag"));
                }
                put(&mut config, FS_TAG, &u32::from(self.queues).to_le_bytes());
            }
            Kind::Vsock => match self.cid {
                Some(cid) => put(&mut config, 0, &cid.to_le_bytes()),
                None if is_told => {}
                None => return Err(FrontEndError::Unknown("cid")),
            },
            Kind::Rng | Kind::Balloon => {}
        }
        Ok(config)
    }
}

impl FrontEndConfig {
    /// Driver and daemon count pairs to find the control queue, unless there is only one (virtio 1.2, 5.1.2).
    fn check_pairs(&self, config: &[u8]) -> Result<(), FrontEndError> {
        let wanted = self.queues;
        let told = config
            .get(NET_MAX_PAIRS..)
            .and_then(<[u8]>::first_chunk::<2>);
        let served = told.map_or(0, |told| u16::from_le_bytes(*told));
        if wanted > 1 && served != 0 && served != wanted {
            return Err(FrontEndError::Pairs { wanted, served });
        }
        Ok(())
    }
}

fn put(config: &mut [u8], offset: usize, bytes: &[u8]) {
    for (place, byte) in config.iter_mut().skip(offset).zip(bytes) {
        *place = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind) -> FrontEndConfig {
        FrontEndConfig {
            kind,
            socket: "/none".into(),
            queues: 2,
            queue_size: 128,
            tag: None,
            mac: None,
            cid: None,
        }
    }

    #[test]
    fn guests_see_only_features_of_devices_and_of_split_rings() {
        let features = of(Kind::Fs).features(u64::MAX);
        let shown: Vec<u32> = (24..64).filter(|bit| features >> bit & 1 == 1).collect();
        let high: Vec<u32> = (50..64).filter(|bit| *bit != 62).collect();
        assert_eq!(shown, [&[28, 29, 32, 35, 36], &high[..]].concat());
    }

    #[test]
    fn a_disk_has_the_queues_that_were_asked_for() {
        let disk = of(Kind::Block);
        let config = disk.config(Some(vec![7; 60])).unwrap();
        assert_eq!(config[34..36], [2, 0]);
        assert_eq!(config[..34], [7; 34]);
        assert!(disk.config(None).is_err());
        let single = FrontEndConfig { queues: 1, ..disk };
        assert_eq!(single.features(u64::MAX) & BLOCK_MQ, 0);
    }

    #[test]
    fn a_network_interface_has_pairs_and_control() {
        let net = FrontEndConfig {
            mac: Some([2, 0, 0, 0, 0, 9]),
            ..of(Kind::Net)
        };
        assert_eq!(net.features(0), NET_MAC);
        assert_eq!(net.queue_count(NET_CONTROL), 5);
        assert_eq!(net.queue_count(0), 4);
        let config = net.config(None).unwrap();
        assert_eq!(config, [2, 0, 0, 0, 0, 9, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn an_interface_with_several_pairs_has_all_of_its_daemons() {
        let told = |pairs| Some(vec![2, 0, 0, 0, 0, 9, 1, 0, pairs, 0, 220, 5]);
        let net = of(Kind::Net);
        assert!(net.config(told(2)).is_ok());
        let sentence = net.config(told(4)).unwrap_err().to_string();
        assert_eq!(
            sentence,
            "queues=2: the daemon has its control queue behind 4 pairs; give queues=4"
        );
        let single = FrontEndConfig { queues: 1, ..net };
        let config = single.config(told(4)).unwrap();
        assert_eq!(config[8..], [1, 0, 220, 5]);
    }

    #[test]
    fn a_file_system_needs_a_name_from_somebody() {
        let fs = of(Kind::Fs);
        assert_eq!(fs.queue_count(0), 3);
        let sentence = fs.config(None).unwrap_err().to_string();
        assert_eq!(
            sentence,
            "the daemon does not tell its tag, so it must be given: tag="
        );
        let named = FrontEndConfig {
            tag: Some("root".into()),
            ..fs
        };
        let config = named.config(Some(vec![b'x'; 40])).unwrap();
        assert_eq!(config[..5], *b"root\0");
        assert_eq!(config[36..], [2, 0, 0, 0]);
    }
}

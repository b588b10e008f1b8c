//! Commands of the control queue (virtio 1.2, 5.1.6.5), as pure parsing.

use thiserror::Error;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
    VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI,
    VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_VLAN,
    VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ,
};

use crate::config::Mac;

/// Longest command that is looked at. A MAC table of 10,000 entries fits.
pub const MAX_COMMAND: usize = 64 << 10;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `VIRTIO_NET_CTRL_RX_*`: promiscuous, all multicast, ... on or off (5.1.6.5.1).
    ReceiveMode {
        /// Which mode.
        mode: u8,
        /// On or off.
        on: bool,
    },
    /// `VIRTIO_NET_CTRL_MAC_TABLE_SET`: addresses the driver wants frames for (5.1.6.5.2).
    MacTable {
        /// Stations' addresses.
        unicast: Vec<Mac>,
        /// Groups' addresses.
        multicast: Vec<Mac>,
    },
    /// `VIRTIO_NET_CTRL_MAC_ADDR_SET`: the device's own address (5.1.6.5.2).
    MacAddress(Mac),
    /// `VIRTIO_NET_CTRL_VLAN_ADD` and `_DEL` (5.1.6.5.3).
    Vlan {
        /// Whether frames of that VLAN are wanted.
        wanted: bool,
        /// Its number.
        id: u16,
    },
    /// `VIRTIO_NET_CTRL_ANNOUNCE_ACK`: the driver has announced itself (5.1.6.5.4).
    AnnounceAck,
    /// `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`: how many queue pairs to use (5.1.6.5.5).
    QueuePairs(u16),
    /// `VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET`: which of the agreed offloads to use (5.1.6.5.6).
    GuestOffloads(u64),
}

/// A command that cannot be understood.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// The class or the command is not known.
    #[error("control command {command} of class {class} is unknown")]
    Unknown {
        /// Its class.
        class: u8,
        /// Its number in the class.
        command: u8,
    },
    /// The data is not what the command takes.
    #[error("control command {command} of class {class} came with the wrong data")]
    Data {
        /// Its class.
        class: u8,
        /// Its number in the class.
        command: u8,
    },
    /// Not even a class and a command.
    #[error("control command of less than two bytes")]
    TooShort,
}

impl Command {
    /// Parses the device-readable part of a control buffer: class, command, data.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        let [class, command, data @ ..] = bytes else {
            return Err(CommandError::TooShort);
        };
        let (class, command) = (*class, *command);
        let parsed = match (u32::from(class), u32::from(command)) {
            (VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC..=VIRTIO_NET_CTRL_RX_NOBCAST) => {
                receive_mode(command, data)
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) => mac_table(data),
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) => mac_address(data),
            (VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD) => vlan(true, data),
            (VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL) => vlan(false, data),
            (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK) => {
                data.is_empty().then_some(Self::AnnounceAck)
            }
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
                exact(data).map(|pairs| Self::QueuePairs(u16::from_le_bytes(pairs)))
            }
            (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
                exact(data).map(|offloads| Self::GuestOffloads(u64::from_le_bytes(offloads)))
            }
            _ => return Err(CommandError::Unknown { class, command }),
        };
        parsed.ok_or(CommandError::Data { class, command })
    }

    /// The feature that must have been agreed on before the driver may give the command.
    pub fn needs(&self) -> u32 {
        match self {
            Self::ReceiveMode { mode, .. } if u32::from(*mode) < VIRTIO_NET_CTRL_RX_ALLUNI => {
                VIRTIO_NET_F_CTRL_RX
            }
            Self::ReceiveMode { .. } => VIRTIO_NET_F_CTRL_RX_EXTRA,
            Self::MacTable { .. } => VIRTIO_NET_F_CTRL_RX,
            Self::MacAddress(_) => VIRTIO_NET_F_CTRL_MAC_ADDR,
            Self::Vlan { .. } => VIRTIO_NET_F_CTRL_VLAN,
            Self::AnnounceAck => VIRTIO_NET_F_GUEST_ANNOUNCE,
            Self::QueuePairs(_) => VIRTIO_NET_F_MQ,
            Self::GuestOffloads(_) => VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        }
    }
}

const _: () = assert!(VIRTIO_NET_CTRL_RX_ALLMULTI + 1 == VIRTIO_NET_CTRL_RX_ALLUNI);

fn exact<const N: usize>(data: &[u8]) -> Option<[u8; N]> {
    data.try_into().ok()
}

fn receive_mode(mode: u8, data: &[u8]) -> Option<Command> {
    match data {
        [on @ (0 | 1)] => Some(Command::ReceiveMode { mode, on: *on == 1 }),
        _ => None,
    }
}

fn mac_address(data: &[u8]) -> Option<Command> {
    let mac = Mac(exact(data)?);
    mac.is_station().then_some(Command::MacAddress(mac))
}

fn vlan(wanted: bool, data: &[u8]) -> Option<Command> {
    let id = u16::from_le_bytes(exact(data)?);
    // 802.1Q: twelve bits.
    (id < 4096).then_some(Command::Vlan { wanted, id })
}

/// Two tables, each a le32 count and so many addresses.
fn mac_table(data: &[u8]) -> Option<Command> {
    let (unicast, rest) = mac_list(data)?;
    let (multicast, rest) = mac_list(rest)?;
    rest.is_empty()
        .then_some(Command::MacTable { unicast, multicast })
}

fn mac_list(data: &[u8]) -> Option<(Vec<Mac>, &[u8])> {
    let (count, rest) = data.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (entries, rest) = rest.split_at_checked(count.checked_mul(6)?)?;
    let (entries, _) = entries.as_chunks::<6>();
    Some((entries.iter().copied().map(Mac).collect(), rest))
}

#[cfg(test)]
mod tests;

//! The machine without its memory.

use serde::{Deserialize, Serialize};

use crate::devices::SerialRegisters;
use crate::kvm::{ChipState, ProcessorState};
use crate::options::Description;
use crate::virtio::TransportState;

/// A paused machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MachineState {
    /// What it is made of; devices with the names that they have.
    pub description: Description,
    /// The guest's clock in nanoseconds.
    pub clock: u64,
    /// Processors, the first one first.
    pub processors: Vec<ProcessorState>,
    /// Interrupt controllers that they share.
    pub chips: ChipState,
    /// What is not on the PCI bus.
    pub platform: PlatformState,
    /// What is.
    pub devices: Vec<DeviceState>,
}

/// Devices that are not on the PCI bus, and the bus's own registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PlatformState {
    /// The first serial port.
    pub serial: SerialRegisters,
    /// Register that the real-time clock shows.
    pub clock_register: u8,
    /// Events that the guest has not seen.
    pub events: u32,
    /// Places of devices that came, and that shall go, which it has not seen.
    pub hot_plug: (u32, u32),
    /// PCI configuration address register.
    pub pci_address: u32,
}

/// A device on the PCI bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeviceState {
    /// Its name.
    pub id: String,
    /// Its place.
    pub slot: usize,
    /// The guest was asked to let go of it.
    pub leaving: bool,
    /// Its registers.
    pub transport: TransportState,
    /// Its daemon's state, in hexadecimal digits.
    #[serde(with = "hexadecimal")]
    pub state: Option<Vec<u8>>,
}

mod hexadecimal {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
        let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 0xf)];
        let text = bytes
            .as_ref()
            .map(|bytes| bytes.iter().flat_map(digits).collect::<String>());
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|it| u8::try_from(it).ok())
        };
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes
            .map(Some)
            .ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Bytes(#[serde(with = "hexadecimal")] Option<Vec<u8>>);

    proptest::proptest! {
        #[test]
        fn bytes_are_digits_and_back(bytes: Option<Vec<u8>>) {
            let text = serde_json::to_string(&Bytes(bytes.clone())).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), Bytes(bytes));
        }

        #[test]
        fn other_text_is_refused(text in "[0-9a-g]{0,9}") {
            let is_bytes = text.len() % 2 == 0 && !text.contains('g');
            let read = serde_json::from_str::<Bytes>(&format!("\"{text}\""));
            proptest::prop_assert_eq!(read.is_ok(), is_bytes);
        }
    }
}

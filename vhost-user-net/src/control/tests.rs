use proptest::prelude::*;

use super::*;

#[test]
fn commands_are_told_apart() {
    let mac = [0x52, 0x54, 0, 0, 0, 1];
    let parse = |class, command, data: &[u8]| Command::parse(&[&[class, command], data].concat());
    let promiscuous = Command::ReceiveMode { mode: 0, on: true };
    assert_eq!(parse(0, 0, &[1]), Ok(promiscuous));
    assert_eq!(parse(1, 1, &mac), Ok(Command::MacAddress(Mac(mac))));
    assert_eq!(parse(3, 0, &[]), Ok(Command::AnnounceAck));
    assert_eq!(parse(4, 0, &[2, 0]), Ok(Command::QueuePairs(2)));
    let vlan = Command::Vlan {
        wanted: false,
        id: 0x0102,
    };
    assert_eq!(parse(2, 1, &[2, 1]), Ok(vlan));
    let offloads = Command::GuestOffloads(0x82);
    assert_eq!(parse(5, 0, &0x82_u64.to_le_bytes()), Ok(offloads));
    let table = [&[1, 0, 0, 0][..], &mac, &[0, 0, 0, 0]].concat();
    let set = Command::MacTable {
        unicast: vec![Mac(mac)],
        multicast: vec![],
    };
    assert_eq!(parse(1, 0, &table), Ok(set));
}

#[test]
fn wrong_data_is_told_from_unknown_commands() {
    let data = |class, command| Err(CommandError::Data { class, command });
    let unknown = |class, command| Err(CommandError::Unknown { class, command });
    assert_eq!(Command::parse(&[]), Err(CommandError::TooShort));
    assert_eq!(Command::parse(&[1]), Err(CommandError::TooShort));
    assert_eq!(Command::parse(&[0, 0]), data(0, 0));
    assert_eq!(Command::parse(&[0, 0, 2]), data(0, 0));
    assert_eq!(Command::parse(&[0, 6, 1]), unknown(0, 6));
    assert_eq!(Command::parse(&[1, 1, 1, 0, 0, 0, 0, 1]), data(1, 1));
    assert_eq!(Command::parse(&[1, 0, 255, 255, 255, 255]), data(1, 0));
    assert_eq!(Command::parse(&[2, 0, 0, 16]), data(2, 0));
    assert_eq!(Command::parse(&[4, 1]), unknown(4, 1));
    assert_eq!(Command::parse(&[9, 0]), unknown(9, 0));
}

#[test]
fn commands_need_the_feature_they_belong_to() {
    let mode = |mode| Command::ReceiveMode { mode, on: true }.needs();
    assert_eq!(mode(1), VIRTIO_NET_F_CTRL_RX);
    assert_eq!(mode(2), VIRTIO_NET_F_CTRL_RX_EXTRA);
    assert_eq!(Command::QueuePairs(1).needs(), VIRTIO_NET_F_MQ);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::parse(&bytes);
    }

    #[test]
    fn no_table_makes_it_panic(counts in any::<[u32; 2]>(), rest in any::<[u8; 24]>()) {
        let [a, b] = counts.map(u32::to_le_bytes);
        let _ = Command::parse(&[&[1, 0][..], &a, &rest[..12], &b, &rest[12..]].concat());
    }

    #[test]
    fn tables_come_back(stations in proptest::collection::vec(any::<[u8; 6]>(), 0..50)) {
        let count = u32::try_from(stations.len()).unwrap().to_le_bytes();
        let bytes = [&[1, 0][..], &0_u32.to_le_bytes(), &count, stations.as_flattened()].concat();
        let multicast = stations.into_iter().map(Mac).collect();
        let table = Command::MacTable { unicast: vec![], multicast };
        prop_assert_eq!(Command::parse(&bytes), Ok(table));
    }
}

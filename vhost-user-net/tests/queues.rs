//! Queue pairs, the control queue, and what the driver reads about the device.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::time::{Duration, Instant};

use lab::frontend::GuestMemory;
use lab::frontend::net::{ACK_ERR, ACK_OK, Receive, Transmit};
use lab::netns::Tap;
use network::{ALL, Guest, Network, next_udp, packet};
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ,
};

const MOMENT: Duration = Duration::from_millis(200);
const MQ: u8 = 4;

/// A second queue pair.
fn second_pair(guest: &mut Guest) -> (Receive, Transmit) {
    let mut receive = Receive::new(guest.front_end.set_up_queue(2, 256).unwrap(), 2048);
    receive.post(128).unwrap();
    let transmit = Transmit::new(guest.front_end.set_up_queue(3, 256).unwrap());
    (receive, transmit)
}

/// Sends one datagram of each of many flows; how many came on either queue.
fn spread(network: &mut Network, first: &mut Receive, second: &mut Receive) -> [usize; 2] {
    const FLOWS: u16 = 64;
    for port in 0..FLOWS {
        let frame = packet::udp(6000 + port, b"flow");
        network.wire.send(packet::PLAIN, &frame);
    }
    [first, second].map(|queue| {
        let mut count = 0;
        loop {
            let frames = queue.receive(MOMENT).unwrap();
            if frames.is_empty() {
                return count;
            }
            let ours = |frame: &[u8]| packet::udp_port(frame).is_some_and(|port| port >= 6000);
            count += frames.iter().filter(|f| ours(&f.frame)).count();
        }
    })
}

#[test]
fn the_driver_reads_what_the_device_is() {
    let tap = Tap {
        multi_queue: true,
        mtu: Some(9000),
        ..Tap::default()
    };
    let network = Network::start_with("net-config", &tap, |d| d.args(["--queue-pairs", "2"]));
    let memory = GuestMemory::with_size(1 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    assert_eq!(front_end.negotiated().unwrap().queues, Some(5));
    let config = front_end.get_config(0, 12).unwrap();
    assert_eq!(config, [0x52, 0x54, 0, 0, 0, 2, 1, 0, 2, 0, 0x28, 0x23]);
    assert_eq!(front_end.get_config(6, 2).unwrap(), [1, 0]);
    assert_eq!(front_end.get_config(10, 100).unwrap().len(), 100);
}

#[test]
fn the_control_queue_switches_the_second_pair_on_and_off() {
    let mut network = Network::start_multi_queue("net-mq");
    let mut guest = network.guest(ALL, 128, 2048);
    let (mut second, mut transmit) = second_pair(&mut guest);
    let mut control = guest.control(2);
    let [one, other] = spread(&mut network, &mut guest.receive, &mut second);
    assert_eq!((one, other), (64, 0), "one pair to begin with");
    assert_eq!(control.command(MQ, 0, &[2, 0]).unwrap(), ACK_OK);
    let [one, other] = spread(&mut network, &mut guest.receive, &mut second);
    assert!(one > 0 && other > 0 && one + other == 64, "{one} {other}");
    for pairs in [0_u16, 3, 0x8000] {
        let ack = control.command(MQ, 0, &pairs.to_le_bytes()).unwrap();
        assert_eq!(ack, ACK_ERR, "{pairs} pairs");
    }
    for (queue, port) in [(&mut guest.transmit, 6100), (&mut transmit, 6101)] {
        queue
            .send(packet::PLAIN, &packet::udp(port, b"out"))
            .unwrap();
        assert_eq!(network.wire.receive_udp(port), b"out");
    }
    assert_eq!(control.command(MQ, 0, &[1, 0]).unwrap(), ACK_OK);
    let [one, other] = spread(&mut network, &mut guest.receive, &mut second);
    assert_eq!((one, other), (64, 0), "one pair again");
}

#[test]
fn features_acknowledged_again_change_nothing_while_queues_run() {
    let mut network = Network::start_multi_queue("net-mq-again");
    let mut guest = network.guest(ALL, 128, 2048);
    let (mut second, _transmit) = second_pair(&mut guest);
    let mut control = guest.control(2);
    assert_eq!(control.command(MQ, 0, &[2, 0]).unwrap(), ACK_OK);
    let features = guest.front_end.negotiated().unwrap().features;
    let again = |vhost: &mut Frontend| vhost.set_features(features);
    guest.front_end.request("SET_FEATURES", again).unwrap();
    let [one, other] = spread(&mut network, &mut guest.receive, &mut second);
    assert!(one > 0 && other > 0 && one + other == 64, "{one} {other}");
    for queue in 0..5 {
        guest.front_end.stop_queue(queue).unwrap();
    }
    guest.front_end.request("SET_FEATURES", again).unwrap();
    let mut guest_again = |index| {
        let mut receive = Receive::new(guest.front_end.set_up_queue(index, 256).unwrap(), 2048);
        receive.post(128).unwrap();
        receive
    };
    let (mut first, mut second) = (guest_again(0), guest_again(2));
    let [one, other] = spread(&mut network, &mut first, &mut second);
    assert_eq!((one, other), (64, 0), "a new driver starts with one pair");
}

#[test]
fn without_a_control_queue_enabled_rings_are_in_use() {
    let mut network = Network::start_multi_queue("net-mq-rings");
    let features = ALL & !(1 << VIRTIO_NET_F_CTRL_VQ);
    let mut guest = network.guest(features, 128, 2048);
    let [one, other] = {
        let mut unused = Receive::new(guest.front_end.lay_out_queue(2, 64).unwrap(), 2048);
        spread(&mut network, &mut guest.receive, &mut unused)
    };
    assert_eq!((one, other), (64, 0));
    let (mut second, _transmit) = second_pair(&mut guest);
    // The queue's thread opens its lane some time after the ring was enabled.
    let deadline = Instant::now() + network::SOON;
    let [one, other] = loop {
        let shares = spread(&mut network, &mut guest.receive, &mut second);
        if shares[1] > 0 || Instant::now() > deadline {
            break shares;
        }
    };
    assert!(one > 0 && other > 0 && one + other == 64, "{one} {other}");
    guest.front_end.enable_queue(2, false).unwrap();
    let [one, other] = spread(&mut network, &mut guest.receive, &mut second);
    assert_eq!((one, other), (64, 0));
}

#[test]
fn a_driver_of_one_pair_finds_the_control_queue_after_it() {
    let network = Network::start_multi_queue("net-mq-single");
    let mut guest = network.guest(ALL & !(1 << VIRTIO_NET_F_MQ), 64, 2048);
    let mut control = guest.control(1);
    assert_eq!(control.command(0, 0, &[1]).unwrap(), ACK_OK);
    let refused = control.command(MQ, 0, &[1, 0]).unwrap();
    assert_eq!(refused, ACK_ERR, "MQ was not agreed on");
}

#[test]
fn commands_are_answered_by_the_specification() {
    let network = Network::start("net-control");
    let mut guest = network.guest(ALL, 64, 2048);
    let mut control = guest.control(1);
    let mac = [0x52, 0x54, 0, 0, 0, 9];
    let table = [&[1, 0, 0, 0][..], &mac, &[0, 0, 0, 0]].concat();
    let cases: [(&str, u8, u8, &[u8], u8); 16] = [
        ("promiscuous on", 0, 0, &[1], ACK_OK),
        ("all multicast off", 0, 1, &[0], ACK_OK),
        ("no broadcast", 0, 5, &[1], ACK_OK),
        ("neither on nor off", 0, 0, &[2], ACK_ERR),
        ("no such receive mode", 0, 6, &[1], ACK_ERR),
        ("MAC table", 1, 0, &table, ACK_OK),
        ("cut MAC table", 1, 0, &table[..9], ACK_ERR),
        ("MAC address", 1, 1, &mac, ACK_OK),
        ("a group's address", 1, 1, &[1, 0, 0, 0, 0, 1], ACK_ERR),
        ("VLAN added", 2, 0, &[5, 0], ACK_OK),
        ("VLAN out of range", 2, 0, &[0, 0x10], ACK_ERR),
        ("announced", 3, 0, &[], ACK_OK),
        ("offloads off", 5, 0, &[0; 8], ACK_OK),
        ("offloads that do not exist", 5, 0, &[0xff; 8], ACK_ERR),
        ("unknown class", 77, 0, &[], ACK_ERR),
        ("MQ, not offered with one pair", MQ, 0, &[1, 0], ACK_ERR),
    ];
    for (name, class, command, data, ack) in cases {
        let answer = control.command(class, command, data).unwrap();
        assert_eq!(answer, ack, "{name}");
    }
    let long = vec![0; 70_000];
    assert_eq!(control.command(1, 0, &long).unwrap(), ACK_ERR, "too long");
    assert_eq!(guest.front_end.get_config(0, 6).unwrap(), mac);
}

#[test]
fn commands_need_their_feature() {
    let network = Network::start("net-control-features");
    let mut guest = network.guest(ALL & !(1 << VIRTIO_NET_F_CTRL_MAC_ADDR), 64, 2048);
    let mut control = guest.control(1);
    let mac = [0x52, 0x54, 0, 0, 0, 9];
    assert_eq!(control.command(1, 1, &mac).unwrap(), ACK_ERR);
    assert_eq!(guest.front_end.get_config(5, 1).unwrap(), [2]);
}

#[test]
fn offloads_can_be_switched_off_while_frames_come() {
    let mut network = Network::start("net-offloads");
    let mut guest = network.guest(ALL, 128, 2048);
    let mut control = guest.control(1);
    assert_eq!(control.command(5, 0, &[0; 8]).unwrap(), ACK_OK);
    let (header, frame) = packet::udp_unfinished(6200, b"finish me");
    network.wire.send(header, &frame);
    let received = guest.next_udp(6200);
    assert!(packet::checksum_holds(&received.frame));
}

#[test]
fn a_guest_is_asked_to_announce_itself_after_a_reconnect() {
    let network = Network::start("net-announce");
    let status = |guest: &mut Guest| guest.front_end.get_config(6, 2).unwrap();
    let mut guest = network.guest(ALL, 64, 2048);
    assert_eq!(status(&mut guest), [1, 0]);
    drop(guest);
    let mut guest = network.guest(ALL, 64, 2048);
    assert_eq!(status(&mut guest), [3, 0]);
    assert_eq!(guest.control(1).command(3, 0, &[]).unwrap(), ACK_OK);
    assert_eq!(status(&mut guest), [1, 0]);
    drop(guest);
    let mut guest = network.guest(ALL & !(1 << VIRTIO_NET_F_GUEST_ANNOUNCE), 64, 2048);
    assert_eq!(status(&mut guest), [1, 0]);
}

#[test]
fn a_new_memory_table_is_taken_up_while_frames_come() {
    let mut network = Network::start("net-table");
    let mut guest = network.guest(ALL, 64, 2048);
    let memory = guest.receive.queue_mut().memory().clone();
    for n in 0..20_u8 {
        guest.front_end.set_mem_table(&memory).unwrap();
        network
            .wire
            .send(packet::PLAIN, &packet::udp(6300, &[n; 30]));
        let received = next_udp(&mut guest.receive, 6300, network::SOON).unwrap();
        assert_eq!(packet::udp_payload(&received.frame), [n; 30]);
    }
}

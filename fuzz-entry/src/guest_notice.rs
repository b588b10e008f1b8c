//! What a guest tells its host: the agent's answers; and the announcement of a stream.
//!
//! Byte 0 chooses which of the agent's answers the rest is read as.

use protobuf::Message;
use ringside_protocol::agent::{EventsResponse, HelloResponse, PidsResponse, StatsResponse};
use ringside_protocol::stream;

/// Read, written and read again, a message is the same.
fn again<T: Message + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = T::parse_from_bytes(bytes) {
        let written = message.write_to_bytes().unwrap();
        let again = T::parse_from_bytes(&written).unwrap();
        // A number that is none is not even itself, and fields that nobody knows are written in any order.
        let sorted = |mut bytes: Vec<u8>| {
            bytes.sort_unstable();
            bytes
        };
        let same = again == message || sorted(again.write_to_bytes().unwrap()) == sorted(written);
        assert!(same, "{} became another", T::NAME);
    }
}

/// What one input does.
pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(name) = stream::parse(line) {
            let announced = stream::announcement(name).unwrap();
            assert_eq!(announced.trim_end().as_bytes(), line);
        }
    }
    match choice % 4 {
        0 => again::<EventsResponse>(bytes),
        1 => again::<StatsResponse>(bytes),
        2 => again::<PidsResponse>(bytes),
        _ => again::<HelloResponse>(bytes),
    }
}

//! A FUSE request's header and arguments, with the groups and security labels that may follow them.
//!
//! Byte 0 is the opcode, byte 1 the units of extensions that the header claims; the rest is what follows
//! the header.

use virtiofsd::fuse::abi::{CreateIn, InHeader, SetattrIn};
use virtiofsd::server::{BODY_MAX, Body, Request, body_len};

/// Takes a body apart in as many ways as its bytes say.
fn take_apart(bytes: &[u8]) {
    let mut body = Body::new(bytes);
    for way in bytes {
        let before = body.rest().len();
        let taken = match way % 6 {
            0 => body.take::<CreateIn>().is_ok(),
            1 => body.take::<SetattrIn>().is_ok(),
            2 => body.take_bytes(usize::from(*way)).is_ok(),
            3 => body.take_path().is_ok_and(|path| path.count_bytes() < 4096),
            4 => body
                .take_string(9)
                .is_ok_and(|string| string.count_bytes() <= 9),
            _ => body.take_name().is_ok_and(|name| {
                let name = name.to_bytes();
                assert!(!name.is_empty() && !name.contains(&b'/'));
                assert!(name != b"." && name != b"..");
                true
            }),
        };
        let after = body.rest().len();
        assert!(after < before || after == before && (!taken || *way == 2 || way % 6 == 2));
    }
}

/// What one input does.
pub fn run(input: &[u8]) {
    let [opcode, extensions, rest @ ..] = input else {
        return;
    };
    let header = InHeader {
        len: u32::try_from(40 + rest.len()).unwrap(),
        opcode: u32::from(*opcode),
        padding: u32::from(*extensions),
        ..Default::default()
    };
    let Ok(len) = body_len(&header) else {
        return;
    };
    assert!(len <= BODY_MAX && len <= rest.len());
    let body = &rest[..len];
    take_apart(body);
    let Ok(Some(mut request)) = Request::decode(&header, body) else {
        return;
    };
    let claimed = usize::from(*extensions) * 8;
    assert_eq!(request.body.rest().len() + claimed, len);
    let _ = request.take_late_labels();
    let creator = &request.creator;
    // No more than what was sent.
    assert!(creator.groups.len() * 4 <= len);
    let labels: usize = creator
        .labels
        .iter()
        .map(|label| label.value.len() + 8)
        .sum();
    assert!(labels <= len);
    for label in &creator.labels {
        assert!(label.name.to_bytes().starts_with(b"security."));
    }
}

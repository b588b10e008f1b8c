//! A netlink message's bytes (netlink(7)).

use std::io;
use std::net::IpAddr;

/// nlmsg_flags: a request that is to be acknowledged.
const REQUEST_ACK: u16 = 1 | 4;

/// nlmsg_type of an acknowledgement.
const ERROR: u16 = 2;

const HEADER: usize = 16;

/// A request while it is written. Everything in it begins at multiples of four.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self { bytes: vec![0; 4] };
        message.bytes(&kind.to_ne_bytes());
        message.bytes(&(REQUEST_ACK | flags).to_ne_bytes());
        // Sequence and port: the first is set in the end, the second is the kernel's to choose.
        message.bytes(&[0; 8]);
        message
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// struct rtattr: length with this header, type, value.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        // No value here comes near 64 KiB: names, addresses, integers.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes(&length.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    pub(super) fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// AF_INET or AF_INET6.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// What the kernel says to the request of this number; `None` where the bytes speak of something else.
pub(super) fn acknowledgement(bytes: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(four.try_into().ok()?))
    };
    let kind = bytes.get(4..6)?;
    if kind != ERROR.to_ne_bytes() || number(8)? != sequence {
        return None;
    }
    // The error is negative, or 0.
    let code = number(HEADER)?.cast_signed();
    Some(match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_lengths_and_alignment() {
        let mut message = Message::new(19, 0x400);
        message.bytes(&[7; 4]);
        message.text(3, "eth0");
        let bytes = message.finish(9);
        assert_eq!(bytes.len(), 16 + 4 + 4 + 8);
        assert_eq!(bytes[..4], 32_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 19_u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x405_u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 9_u32.to_ne_bytes());
        assert_eq!(bytes[20..22], 9_u16.to_ne_bytes());
        assert_eq!(&bytes[24..], b"eth0\0\0\0\0");
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let answer = |kind: u16, sequence: u32, code: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
            bytes[16..].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert!(acknowledgement(&answer(2, 5, 0), 5).unwrap().is_ok());
        let refused = acknowledgement(&answer(2, 5, -libc::EPERM), 5).unwrap();
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(acknowledgement(&answer(2, 4, 0), 5).is_none());
        assert!(acknowledgement(&answer(16, 5, 0), 5).is_none());
        for length in 0..20 {
            assert!(acknowledgement(&answer(2, 5, 0)[..length], 5).is_none());
        }
    }
}

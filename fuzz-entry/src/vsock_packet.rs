//! A packet's header from the guest, and the first words of a program.

use vhost_user_vsock::hybrid::parse_line;
use vhost_user_vsock::packet::{HEADER, Header, Op, Packet};

/// What one input does.
pub fn run(bytes: &[u8]) {
    if let Ok(Some((port, len))) = parse_line(bytes) {
        assert_eq!(bytes[len - 1], b'\n');
        let again = format!("CONNECT {port}\n");
        assert_eq!(parse_line(again.as_bytes()), Ok(Some((port, again.len()))));
    }
    let Some((front, payload)) = bytes.split_first_chunk::<HEADER>() else {
        return;
    };
    let header = Header::from_bytes(front);
    assert_eq!(header.to_bytes(), *front);
    match Packet::parse(&header, 3, payload.len()) {
        Ok(packet) => {
            assert!(packet.len <= payload.len());
            assert_eq!(header.connection(), Some(packet.key));
        }
        Err(fault) if fault.is_answered() => {
            let reset = header.reset();
            assert_eq!(
                (reset.op, reset.dst_port),
                (Op::Reset as u16, header.src_port)
            );
        }
        Err(_) => {}
    }
}

//! A real guest whose front end none of us wrote: QEMU's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use lab::guest::QemuGuest;
use support::Host;

/// The emulated processor copies each byte several times, at some 10 MB/s.
const LEN: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(100);

/// Sends everything, ends that direction and gives what comes back.
fn echo(stream: UnixStream, sent: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = stream;
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    writer.set_write_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::with_capacity(sent.len());
        reader.read_to_end(&mut got).unwrap();
        got
    })
}

/// What goes in comes back out, whoever connects, and the end of one direction does not end the other.
#[test]
fn a_qemu_guest_echoes_both_ways() {
    let host = Host::start("vsock-qemu");
    let listener = host.listen(5000);
    // Nobody listens on 5001: refused at once, and by the guest on port 80.
    let script = "
set -e
socat -b 65536 VSOCK-LISTEN:70 EXEC:cat &
if socat -u OPEN:/dev/null VSOCK-CONNECT:2:5001; then exit 7; fi
socat -b 65536 VSOCK-CONNECT:2:5000 EXEC:cat
wait
";
    let guest = QemuGuest::new(script)
        .module("vmw_vsock_virtio_transport")
        .program("socat")
        .cpus(2)
        .options(["-global", "vhost-user-vsock-pci.vectors=0"])
        .limit(PATIENCE)
        .vsock(host.socket())
        .start()
        .unwrap();
    let piece = lab::pattern(5, LEN);
    let from_guest = listener.accept().unwrap().0;
    assert!(!support::answered(&host.ask(80)));
    assert!(
        echo(from_guest, &piece) == piece,
        "bytes changed on the way"
    );
    let to_guest = host.connect_patiently(70, PATIENCE);
    assert!(echo(to_guest, &piece) == piece, "bytes changed on the way");
    guest.wait().unwrap().success().unwrap();
    host.check();
}

//! A guest's socket ports are unix sockets of the host's.

use super::support::{Lab, TestResult};

/// The lab's own files are the guest's: socat and its libraries.
const GUEST: &str = r#"
    load virtiofs vmw_vsock_virtio_transport
    mount -t virtiofs files /mnt
    mount -t devtmpfs dev /mnt/dev
    socat() { chroot /mnt /usr/bin/socat -b 65536 "$@"; }
    socat VSOCK-LISTEN:70 EXEC:/bin/cat &
    if socat VSOCK-CONNECT:2:5001 EXEC:/bin/cat; then echo "nobody listens FAILED"; fi
    socat VSOCK-CONNECT:2:5000 EXEC:/bin/cat
    wait
    echo "both closed"
    # Nothing comes, and nothing is sent: only the device can tell of the end.
    socat -u VSOCK-CONNECT:2:5002 OPEN:/dev/null
    echo "the idle one ended"
    until socat VSOCK-CONNECT:2:5003 EXEC:/bin/cat; do usleep 200000; done
"#;

const HOST: &str = r#"
    vsock() {
        "$VSOCK" --cid 7 --uds-path v --socket-path vsock.sock --sandbox none 2>>vsock.log &
        echo $! >vsock.pid
        until [ -S vsock.sock ]; do sleep 0.05; done
    }
    # send PORT FILE: what the guest that connects to PORT sends back goes to FILE.
    send() { socat -t 100 -b 65536 "UNIX-LISTEN:v_$1" - <sent >"$2"; }
    fs --shared-dir /
    vsock
    head -c 3000000 /dev/urandom >sent
    send 5000 back-from-guest &
    send 5003 back-after-kill &
    after=$!
    (
        # The guest's own connection tells that it is up.
        until [ -s back-from-guest ]; do sleep 0.1; done
        { echo CONNECT 70; cat sent; } | socat -t 100 -b 65536 - UNIX-CONNECT:v >back-to-guest
    ) &
    socat UNIX-LISTEN:v_5002 SYSTEM:'touch idle; sleep 300' >/dev/null 2>&1 &
    (
        until [ -e idle ]; do sleep 0.1; done
        kill -9 "$(cat vsock.pid)"
        vsock
    ) &
    boot guest --kernel "$ELF" --fs socket=fs.sock,tag=files --vsock socket=vsock.sock
    wait $after || true
    cat vsock.log
    cmp sent back-from-guest && echo "the guest connected"
    head -n 1 back-to-guest | grep -q '^OK [0-9]*$' && tail -n +2 back-to-guest | cmp sent - &&
        echo "the host connected"
    cmp sent back-after-kill && echo "the guest connected again"
"#;

#[test]
fn a_guest_and_the_host_connect_to_each_other() -> TestResult {
    let lab = Lab::new("sockets")?;
    let said = lab.run(GUEST, HOST)?;
    let guest = said.guest("guest");
    for expected in ["both closed", "the idle one ended"] {
        assert!(guest.contains(expected), "no {expected:?} in {guest}");
    }
    assert!(!guest.contains("FAILED"), "{guest}");
    assert_eq!(said.code("guest"), 0, "{guest}");
    for expected in [
        "the guest connected",
        "the host connected",
        "the guest connected again",
    ] {
        let line = format!("\n{expected}\n");
        assert!(said.contains(&line), "no {expected:?} in {said:?}");
    }
    Ok(())
}

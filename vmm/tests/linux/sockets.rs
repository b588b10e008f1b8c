//! A guest's socket ports are unix sockets of the host's.

use super::support::{Lab, TestResult};

/// The lab's own files are the guest's: socat and its libraries.
const GUEST: &str = r#"
    load virtiofs vmw_vsock_virtio_transport
    mount -t virtiofs files /mnt
    mount -t devtmpfs dev /mnt/dev
    echo() { chroot /mnt /usr/bin/socat -b 65536 "$1" EXEC:/bin/cat; }
    echo VSOCK-LISTEN:70 &
    if echo VSOCK-CONNECT:2:5001; then busybox echo "nobody listens FAILED"; fi
    echo VSOCK-CONNECT:2:5000
    wait
    busybox echo "both closed"
"#;

#[test]
fn a_guest_and_the_host_connect_to_each_other() -> TestResult {
    let lab = Lab::new("sockets")?;
    let said = lab.run(
        GUEST,
        r#"
        fs --shared-dir /
        "$VSOCK" --cid 7 --uds-path v --socket-path vsock.sock --sandbox none 2>>vsock.log &
        until [ -S vsock.sock ]; do sleep 0.05; done
        head -c 3000000 /dev/urandom >sent
        socat -t 100 -b 65536 UNIX-LISTEN:v_5000 - <sent >back-from-guest &
        (
            # The guest's own connection tells that it is up.
            until [ -s back-from-guest ]; do sleep 0.1; done
            { echo CONNECT 70; cat sent; } | socat -t 100 -b 65536 - UNIX-CONNECT:v >back-to-guest
        ) &
        boot guest --kernel "$ELF" --fs socket=fs.sock,tag=files --vsock socket=vsock.sock
        wait $! || true
        cat vsock.log
        cmp sent back-from-guest && echo "the guest connected"
        head -n 1 back-to-guest | grep -q '^OK [0-9]*$' && tail -n +2 back-to-guest | cmp sent - &&
            echo "the host connected"
        "#,
    )?;
    let guest = said.guest("guest");
    assert!(guest.contains("both closed"), "{guest}");
    assert!(!guest.contains("FAILED"), "{guest}");
    assert_eq!(said.code("guest"), 0, "{guest}");
    for expected in ["the guest connected", "the host connected"] {
        assert!(said.contains(expected), "no {expected:?} in {said:?}");
    }
    Ok(())
}

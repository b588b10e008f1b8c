//! A daemon that does not stop when its guest starts again.

use super::support::{Lab, TestResult};

const GUEST: &str = r#"
load virtio_blk
until [ -b /dev/vda ]; do usleep 100000; done
echo ready
while :; do sleep 1; done"#;

const SCRIPT: &str = r#"
truncate -s 16M disk
blk --blk-file disk
boot guest --kernel "$ELF" --api-socket api.sock --disk socket=blk.sock &
guest=$!
until grep -q ready guest.console 2>/dev/null; do sleep 0.2; done
kill -STOP "$(cat blk.pid)"
api POST /v1/reset
wait $guest
kill -CONT "$(cat blk.pid)"
"#;

#[test]
fn no_guest_begins_in_memory_that_a_daemon_may_still_write() -> TestResult {
    let lab = Lab::new("late")?;
    let said = lab.run(GUEST, SCRIPT)?;
    let guest = said.guest("guest");
    let expected = "the daemon of disk0 does not stop, and may still write into the guest's memory";
    assert!(guest.contains(expected), "{guest}");
    assert_eq!((said.code("guest"), guest.matches("ready").count()), (1, 1));
    Ok(())
}

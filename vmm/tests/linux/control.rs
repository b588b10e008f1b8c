//! A machine gets orders while a guest runs.

use crate::support::{Lab, TestResult};

/// What the guest does for orders: counts, uses devices that come and go, starts again, is switched off.
const GUEST: &str = r#"
load virtio_blk virtiofs virtio_net button evdev
mount -t virtiofs files /mnt
echo "round $(cat /mnt/round)"
if [ "$(cat /mnt/round)" = 1 ]; then
    (n=0; until [ -e /mnt/enough ]; do n=$((n + 1)); echo $n >/mnt/count; usleep 20000; done) &
    for turn in 1 2 3 4 5; do
        until [ -b /dev/vda ]; do usleep 100000; done
        if [ $turn -gt 1 ]; then
            dd if=/dev/vda bs=512 skip=$((turn - 1)) count=1 2>/dev/null | grep -q "turn $((turn - 1))," ||
                echo "turn $turn FAILED: the disk forgot"
        fi
        echo "turn $turn," | dd of=/dev/vda bs=512 seek=$turn conv=sync,fsync 2>/dev/null || echo "turn $turn FAILED"
        echo $turn >/mnt/did
        while [ -b /dev/vda ]; do usleep 100000; done
    done
    mkdir /more
    until mount -t virtiofs more /more 2>/dev/null; do usleep 100000; done
    cat /more/file
    umount /more
    echo more >/mnt/did
    until [ -e /sys/class/net/eth0 ]; do usleep 100000; done
    ip link set eth0 up && echo "eth0 is $(cat /sys/class/net/eth0/address)"
    echo net >/mnt/did
    while [ -e /sys/class/net/eth0 ]; do usleep 100000; done
    echo gone >/mnt/did
    while :; do sleep 1; done
fi
dmesg | grep -E "soft lockup|BUG:" && echo FAILED
echo waiting >/mnt/did
dd if=/dev/input/event0 bs=24 count=1 >/dev/null 2>&1 && echo "the button was pressed"
poweroff -f"#;

const ORDERS: &str = r#"
mkdir files more; echo 1 >files/round; echo "more files" >more/file
truncate -s 16M disk
blk --blk-file disk; fs --shared-dir files
"$FS" --socket-path more.sock --sandbox none --shared-dir more 2>>fs.log &
"$NET" --switch --port socket=net.sock --sandbox none 2>>net.log &
boot guest --kernel "$ELF" --cpus 2 --api-socket api.sock --fs socket=fs.sock,tag=files --rng &
guest=$!
until [ -s files/count ]; do sleep 0.1; done
vmm=$(api GET /v1/info | sed 's/.*"pid":\([0-9]*\).*/\1/')
api GET /v1/info

api POST /v1/pause; api POST /v1/pause
api GET /v1/info
before=$(cat files/count); sleep 1; after=$(cat files/count)
[ "$before" = "$after" ] || echo "it counted from $before to $after while it was paused FAILED"
api POST /v1/resume
until [ "$(cat files/count)" != "$after" ]; do sleep 0.1; done
echo "it counts on"; touch files/enough

used() { ls /proc/$vmm/fd | wc -l; ls /proc/$vmm/task | wc -l; }
for turn in 1 2 3 4 5; do
    api POST /v1/devices '{"disk": {"socket": "blk.sock", "id": "hot"}}' >added
    until_is files/did $turn
    [ $turn = 3 ] && api POST /v1/devices '{"disk": {"socket": "blk.sock", "id": "hot"}}'
    api DELETE /v1/devices/hot
    for _ in $(seq 100); do api GET /v1/devices >devices; grep -q hot devices || break; sleep 0.2; done
    [ $turn = 1 ] && { sleep 0.5; used >used.first; }
done
cat added; sleep 0.5; used >used.last
cmp used.first used.last && echo "nothing leaks: $(tr '\n' ' ' <used.last)"
grep -q hot devices && echo "the disk is still there FAILED"
api POST /v1/devices '{"fs": {"socket": "more.sock", "tag": "more"}}'
until_is files/did more
api DELETE /v1/devices/fs1
api POST /v1/devices '{"net": {"socket": "net.sock", "mac": "02:00:00:00:00:77"}}'
until_is files/did net
api DELETE /v1/devices/net0
until_is files/did gone
api DELETE /v1/devices/none
api POST /v1/devices '{"disk": {"socket": "nobody.sock"}}'
api GET /metrics | grep -E '^ringside_vmm_(exits_total|device_started|paused)'

echo 2 >files/round
api POST /v1/reset
until_is files/did waiting
api GET /v1/devices
api POST /v1/shutdown
wait $guest
test -e api.sock && echo "the socket stays FAILED"
true
"#;

#[test]
fn a_running_machine_does_what_it_is_told() -> TestResult {
    let lab = Lab::new("orders")?;
    let said = lab.run(GUEST, ORDERS)?;
    let text = format!("{said:?}")
        .replace("\\n", "\n")
        .replace("\\\"", "\"");
    assert_eq!(said.code("guest"), 0, "{text}");
    let guest = said.guest("guest");
    for expected in [
        "round 1",
        "more files",
        "round 2",
        "eth0 is 02:00:00:00:00:77",
        "the button was pressed",
    ] {
        assert!(guest.contains(expected), "no {expected:?} in {text}");
    }
    for expected in [
        r#""state":"running","cpus":2,"memory":268435456,"devices":2"#,
        r#""state":"paused""#,
        "it counts on",
        r#""id":"hot","kind":"disk","slot":3"#,
        "nothing leaks",
        r#""id":"fs1","kind":"fs","slot":3"#,
        r#""id":"net0","kind":"net""#,
        "{\"error\":\"there is no device none\"}",
        "{\"error\":\"there is a device hot already\"}",
        "--disk socket=nobody.sock: nobody listens there",
        r#"ringside_vmm_exits_total{cpu="1",kind="port"}"#,
        r#"ringside_vmm_device_started{device="rng",kind="rng"}"#,
        "ringside_vmm_paused 0",
    ] {
        assert!(said.contains(expected), "no {expected:?} in {text}");
    }
    // Three orders were to be refused.
    assert_eq!(text.matches("FAILED").count(), 3, "{text}");
    Ok(())
}

/// Fills memory with what nobody can guess, and compares again and again; so with a disk. A file stays
/// open for writing. What is sent over the network comes back.
const KEEPER: &str = r#"
load virtio_blk virtiofs virtio_net virtio_balloon button evdev
ip link set eth0 up; ip address add 10.0.2.2/24 dev eth0
mount -t virtiofs files /mnt
exec 3>>/mnt/log
dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
sum=$(md5sum </tmp/data)
dd if=/tmp/data of=/dev/vda bs=1M count=4 oflag=direct 2>/dev/null
(dd if=/dev/input/event0 bs=24 count=1 >/dev/null 2>&1; touch /tmp/stop) &
(until [ -e /tmp/stop ]; do
    sleep 1
    echoed=$(dd if=/tmp/data bs=64k count=8 2>/dev/null | timeout 20 nc 10.0.2.1 7 | md5sum)
    # What is cut off by a restored machine's end of the connection is nobody's error.
    [ "$echoed" = "$(dd if=/tmp/data bs=64k count=8 2>/dev/null | md5sum)" ] && echo "echoed"
done) &
echo "ready $(nproc)"
n=0
until [ -e /tmp/stop ]; do
    n=$((n + 1))
    [ "$(md5sum </tmp/data)" = "$sum" ] || echo "memory FAILED"
    dd if=/dev/vda bs=1M count=4 iflag=direct 2>/dev/null | cmp -n 4194304 - /tmp/data || echo "disk FAILED"
    echo "line $n" >&3 || echo "file FAILED"
    echo "tick $n"
done
dmesg | grep -E "soft lockup|BUG:|I/O error" && echo FAILED
echo "kept everything for $n ticks"
# Who still sends when the kernel stops its network card spins for ever, and the machine does not go off.
wait
poweroff -f"#;

/// A guest with a disk, files and a network, at work.
const AT_WORK: &str = r#"
truncate -s 16M disk; mkdir files state
blk --blk-file disk --state-dir state; fs --shared-dir files; net
ip netns exec guest socat TCP-LISTEN:7,fork,reuseaddr EXEC:cat &
# ticks GUEST: so often it compared everything. more GUEST: waits until it did twice more. The translator may have hung a
# guest (docs/lab.md), or we: what its machine does then is told at once.
ticks() { cat $1.console 2>/dev/null | grep -c tick || true; }
more() {
    last=$(ticks $1)
    for _ in $(seq 450); do
        [ "$(ticks $1)" -gt $((last + 2)) ] && return
        sleep 0.2
    done
    echo "$1 stands still after $(ticks $1) ticks FAILED"
    cat $1.console ./*.log
    for _ in 1 2; do
        api GET /metrics | grep exits_total
        for thread in /proc/$(pidof ringside-vmm)/task/*; do
            echo "$(cat $thread/comm): $(cut -d" " -f3,14,15 $thread/stat), $(cat $thread/syscall)"
        done
        sleep 2
    done
    exit 1
}
boot one --kernel "$ELF" --cpus 2 --api-socket api.sock --disk socket=blk.sock --rng \
    --balloon 0 --fs socket=fs.sock,tag=files --net socket=net.sock,mac=02:00:00:00:00:02 &
one=$!
more one
"#;

const LIVE: &str = r#"
api POST /v1/snapshot '{"folder": "second", "live": true, "stay-paused": true}'; echo
api POST /v1/snapshot '{"folder": "third"}'
cmp second/memory third/memory && echo "the live one is the same, $(md5sum <third/memory)"
rm -r second third
api POST /v1/resume
more one && echo "it goes on after a live one"
api POST /v1/shutdown
wait $one
"#;

const SNAPSHOTS: &str = r#"
# balloon BYTES: waits until the guest has put them in.
balloon() {
    api PUT /v1/memory "{\"balloon\": $1}"
    for _ in $(seq 100); do api GET /v1/memory >memory; grep -q "\"actual\":$1," memory && return; sleep 0.2; done
    echo "the balloon has not $1 bytes FAILED"
}
balloon 50331648; cat memory
api PUT /v1/memory '{"balloon": "1G"}'
(
    until [ -s saved/memory ]; do sleep 0.02; done
    sleep 0.2
    kill -9 "$(cat blk.pid)"
    blk --blk-file disk --state-dir state
) &
api POST /v1/snapshot '{"folder": "saved", "live": true, "stay-paused": true}'; echo
api GET /metrics | grep 'losses_total{device="disk0"'
api POST /v1/snapshot '{"folder": "saved", "live": true}'
api POST /v1/quit
wait $one
du -m saved/memory | sed 's/^\([0-9]*\).*/the memory file has \1 MiB/'

boot two --restore saved --paused --api-socket api.sock &
two=$!
until [ -S api.sock ]; do sleep 0.2; done
api GET /v1/info
api POST /v1/snapshot '{"folder": "again"}'
cmp saved/memory again/memory && echo "memory is the same, $(md5sum <saved/memory)"
api GET /v1/memory
api POST /v1/resume
more two
balloon 0; cat memory
api POST /v1/shutdown
wait $two
echo "the file has $(sort -u files/log | wc -l) lines, the last one is $(tail -n 1 files/log)"

sed -i 's/"version":1,/"version":77,/' saved/state.json
boot three --restore saved
boot four --restore again --cpus 4
"#;

#[test]
fn a_live_snapshot_is_the_machine_at_its_pause() -> TestResult {
    let lab = Lab::new("live")?;
    let said = lab.run(KEEPER, &format!("{AT_WORK}{LIVE}"))?;
    let text = format!("{said:?}").replace("\\n", "\n");
    for expected in ["the live one is the same", "it goes on after a live one"] {
        assert!(said.contains(expected), "no {expected:?} in {text}");
    }
    let one = said.guest("one");
    assert_eq!(said.code("one"), 0, "{text}");
    assert!(
        one.contains("kept everything") && one.contains("echoed"),
        "{one}"
    );
    Ok(())
}

#[test]
fn a_restored_machine_is_what_it_was() -> TestResult {
    let lab = Lab::new("snapshots")?;
    let said = lab.run(KEEPER, &format!("{AT_WORK}{SNAPSHOTS}"))?;
    let text = format!("{said:?}")
        .replace("\\n", "\n")
        .replace("\\\"", "\"");
    let codes = ["one", "two", "three", "four"].map(|name| said.code(name));
    assert_eq!(codes, [0, 0, 1, 1], "{text}");
    assert!(said.guest("one").contains("ready 2"), "{text}");
    assert!(said.guest("two").contains("kept everything"), "{text}");
    for expected in ["memory is the same", r#"device="disk0",kind="disk"} 1"#] {
        assert!(said.contains(expected), "no {expected:?} in {text}");
    }
    for guest in ["one", "two"] {
        assert!(said.guest(guest).contains("echoed"), "{guest}: {text}");
    }
    assert!(said.contains(r#""state":"paused""#), "{text}");
    let three = said.guest("three");
    assert!(
        three.contains("state.json has version 77, and this program reads version 1"),
        "{three}"
    );
    let four = said.guest("four");
    assert!(four.contains("--cpus does not go with --restore"), "{four}");
    // The balloon was restored with the rest, and let go of what it had.
    assert!(
        said.contains(r#""target":50331648,"actual":50331648,"#),
        "{text}"
    );
    assert!(said.contains(r#""target":0,"actual":0,"#), "{text}");
    let ticks =
        said.guest("two").matches("tick ").count() + said.guest("one").matches("tick ").count();
    assert!(
        said.contains(&format!(
            "the file has {ticks} lines, the last one is line {ticks}"
        )),
        "{text}"
    );
    // The second snapshot in one folder, and a balloon of all memory, were to be refused.
    assert!(said.contains("has a snapshot already"), "{text}");
    assert!(
        said.contains("a balloon of 1G is all of the guest's memory"),
        "{text}"
    );
    assert_eq!(text.matches("FAILED").count(), 2, "{text}");
    Ok(())
}

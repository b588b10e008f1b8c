//! A guest's programs work on disk, files and network.

use super::support::{Lab, TestResult};

/// The lab's own files are the guest's: fio, iperf3 and all they need. `/mnt/run` is the tests' folder.
pub(crate) const ENTER: &str = r#"
    load virtio_blk virtiofs virtio_net
    mount -t virtiofs files /mnt
    mount -t devtmpfs dev /mnt/dev
    mount -t proc proc /mnt/proc
    mount -t tmpfs tmp /mnt/mnt
    ip link set eth0 up
    ip address add 10.0.2.2/24 dev eth0
    host() { chroot /mnt /usr/bin/env PATH=/usr/bin:/bin:/usr/sbin:/sbin "$@"; }
    verify() {
        host fio --name=verify --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 \
            --rw=randwrite --bs=4k --verify=crc32c --verify_fatal=1 --output=/mnt/fio --eta=never "$@"
    }
"#;

pub(crate) const DAEMONS: &str = r#"
    work=$(pwd)
    mkdir state
    truncate -s 64M disk
    blk --blk-file disk --state-dir state
    net
    ip netns exec guest iperf3 --server --daemon
"#;

#[test]
fn disk_network_and_files_work() -> TestResult {
    let lab = Lab::new("work")?;
    let guest = format!(
        "{ENTER}{}",
        r#"
        ip address
        ping -c 3 10.0.2.1
        verify --size=4M && echo "fio verified"
        host iperf3 --client 10.0.2.1 --time 2 >/mnt/mnt/there && echo "iperf3 sent"
        host iperf3 --client 10.0.2.1 --time 2 --reverse >/mnt/mnt/back && echo "iperf3 received"
        grep -h receiver /mnt/mnt/there /mnt/mnt/back
        cd "/mnt$(sed 's/.*test.work=//' /proc/cmdline)" || exit
        (cd tree && find . -type f | sort | xargs md5sum) | md5sum >sum-of-guest
        cp -a tree copy && sync
        grep -E 'virtio|Blocked' /proc/interrupts
        "#
    );
    let said = lab.run(
        &guest,
        &format!(
            "{DAEMONS}{}",
            r#"
            mkdir tree; cp -a /usr/lib/python3*/json /usr/lib/python3*/email tree
            head -c 3000000 /dev/urandom >tree/random; : >tree/empty
            fs --shared-dir /
            CMDLINE="console=ttyS0 quiet panic=-1 test.work=$work"
            boot guest --kernel "$ELF" --cpus 2 --rng --disk socket=blk.sock \
                --net socket=net.sock,mac=02:00:00:00:00:02 --fs socket=fs.sock,tag=files
            tail -n 30 net.log
            ip -n guest -s link show tap0; ip -n guest neigh
            (cd tree && find . -type f | sort | xargs md5sum) | md5sum | cmp - sum-of-guest && echo "read right"
            diff -r tree copy && echo "written right: $(find copy -type f | wc -l) files"
            "#
        ),
    )?;
    let console = said.guest("guest");
    for expected in ["fio verified", "iperf3 sent", "iperf3 received"] {
        assert!(console.contains(expected), "no {expected:?} in {console}");
    }
    assert_eq!(said.code("guest"), 0, "{console}");
    assert!(said.contains("read right"), "{said:?}");
    assert!(said.contains("written right"), "{said:?}");
    Ok(())
}

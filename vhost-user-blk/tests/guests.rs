//! Real guests whose front ends none of us wrote: QEMU and User-Mode Linux.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::process::Command;

use disk::Disk;
use lab::guest::{QemuGuest, UmlGuest, VhostUser};

const IMAGE: u64 = 64 << 20;

/// What the guest does with its disk `/dev/vda`: patterns written through the cache and around
/// it, read back from the disk, an ext4-less check of geometry, discard, and a flush at the end.
const WORKOUT: &str = r#"
set -e
work=/mnt
mkdir -p $work
mount -t tmpfs tmpfs $work
test "$(cat /sys/block/vda/size)" = 131072
test "$(cat /sys/block/vda/queue/logical_block_size)" = 512
test "$(cat /sys/block/vda/queue/physical_block_size)" = 4096
test "$(cat /sys/block/vda/ro)" = 0
cat /sys/block/vda/queue/write_cache
dd if=/dev/vda of=$work/first bs=1M count=4 2>/dev/null
sha256sum <$work/first
dd if=$work/first of=/dev/vda bs=4k seek=4096 conv=fsync 2>/dev/null
dd if=$work/first of=/dev/vda bs=64k seek=512 oflag=direct 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=16 count=4 2>/dev/null | sha256sum
dd if=/dev/vda bs=4k skip=8192 count=1024 iflag=direct 2>/dev/null | sha256sum
blkdiscard -o 1048576 -l 1048576 /dev/vda 2>/dev/null || echo no-blkdiscard
sync
"#;

fn prepared(test: &str) -> (Disk, Vec<u8>) {
    let disk = Disk::start(test, IMAGE);
    let first = lab::pattern(42, 4 << 20);
    let file = std::fs::File::options()
        .write(true)
        .open(&disk.image)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &first, 0).unwrap();
    (disk, first)
}

fn check(disk: &Disk, first: &[u8], output: &str) {
    let sums: Vec<&str> = output.lines().filter(|line| line.ends_with('-')).collect();
    assert_eq!(sums.len(), 3, "{output}");
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{output}");
    assert!(output.contains("write back"), "{output}");
    let image = std::fs::read(&disk.image).unwrap();
    assert!(
        image[16 << 20..][..4 << 20] == *first,
        "written through the cache"
    );
    assert!(
        image[32 << 20..][..4 << 20] == *first,
        "written around the cache"
    );
    let discarded = if output.contains("no-blkdiscard") {
        first[1 << 20]
    } else {
        0
    };
    assert_eq!(image[1 << 20], discarded);
    assert!(
        !disk.daemon.stderr().contains("the guest broke a rule"),
        "{}",
        disk.daemon.stderr()
    );
}

#[test]
fn qemu_guest_reads_and_writes() {
    let (disk, first) = prepared("blk-qemu");
    let guest = QemuGuest::new(WORKOUT)
        .cpus(2)
        .blk(VhostUser::new(&disk.socket).queues(2));
    let output = guest.run().unwrap().success().unwrap();
    check(&disk, &first, &output);
}

#[test]
fn uml_guest_reads_and_writes() {
    let (disk, first) = prepared("blk-uml");
    let output = UmlGuest::new(WORKOUT)
        .blk(&disk.socket)
        .run()
        .unwrap()
        .success()
        .unwrap();
    check(&disk, &first, &output);
}

#[test]
fn an_ext4_made_by_the_host_is_used_and_left_clean() {
    lab::need::program("mkfs.ext4").unwrap();
    let disk = Disk::start("blk-ext4", IMAGE);
    let made = std::process::Command::new("mkfs.ext4")
        .arg("-q")
        .arg(&disk.image)
        .status()
        .unwrap();
    assert!(made.success());
    let script = r#"
set -e
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
mkdir -p /mnt/a/b
i=0
while [ $i -lt 200 ]; do echo "file $i" >/mnt/a/b/$i; i=$((i+1)); done
dd if=/dev/urandom of=/mnt/big bs=1M count=8 2>/dev/null
sha256sum /mnt/big | cut -d' ' -f1 >/mnt/sum
rm /mnt/a/b/1?
umount /mnt
mount -t ext4 /dev/vda /mnt
test "$(sha256sum /mnt/big | cut -d' ' -f1)" = "$(cat /mnt/sum)"
ls /mnt/a/b | wc -l
umount /mnt
"#;
    let guest = QemuGuest::new(script).module("ext4").blk(&disk.socket);
    let output = guest.run().unwrap().success().unwrap();
    assert_eq!(output.trim(), "190");
    let checked = std::process::Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(&disk.image)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

#[test]
fn a_rebooted_guest_finds_the_daemon_again() {
    let disk = Disk::start("blk-reboot", IMAGE);
    for round in 0..2 {
        let script = format!(
            "echo round-{round} | dd of=/dev/vda conv=fsync bs=512 2>/dev/null; head -c 7 /dev/vda"
        );
        let output = QemuGuest::new(script)
            .blk(&disk.socket)
            .run()
            .unwrap()
            .success()
            .unwrap();
        assert_eq!(output.trim(), format!("round-{round}"));
    }
}

#[test]
fn fio_in_a_uml_guest_verifies_what_it_wrote() {
    lab::need::program("fio").unwrap();
    let disk = Disk::start("blk-uml-fio", IMAGE);
    let script = "cd /mnt && fio --name=verify --filename=/dev/vda --rw=randwrite --bs=4k-64k \
                  --size=48m --ioengine=psync --direct=1 --verify=crc32c --do_verify=1 \
                  --verify_fatal=1 --randrepeat=0 --minimal >/mnt/out && echo verified";
    let output = UmlGuest::new(script)
        .blk(&disk.socket)
        .run()
        .unwrap()
        .success()
        .unwrap();
    assert!(output.contains("verified"), "{output}");
}

/// A root for `chroot`, as an ext4 image, with a program of the host's and its libraries.
fn tools_image(disk: &Disk, program: &str) -> std::path::PathBuf {
    lab::need::program("mkfs.ext4").unwrap();
    let program = lab::need::program(program).unwrap();
    let root = disk.scratch.join("tools");
    let listed = Command::new("ldd").arg(&program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.chain(program.to_str()) {
        let copy = root.join(&file[1..]);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
    for mount_point in ["dev", "proc", "sys", "tmp"] {
        std::fs::create_dir(root.join(mount_point)).unwrap();
    }
    let image = disk.scratch.image("tools.img", 256 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-d"])
        .args([&root, &image])
        .status()
        .unwrap();
    assert!(made.success());
    image
}

#[test]
fn fio_in_a_qemu_guest_verifies_what_it_wrote() {
    let disk = Disk::start("blk-qemu-fio", IMAGE);
    let tools = tools_image(&disk, "fio");
    let tools_socket = disk.scratch.join("tools.sock");
    let _tools = lab::process::Daemon::builder(disk::PROGRAM)
        .arg("--read-only")
        .arg("--blk-file")
        .arg(tools)
        .arg("--socket-path")
        .arg(&tools_socket)
        .spawn_listening(&tools_socket, disk::SOON)
        .unwrap();
    let script = "
        set -e
        mount -t ext4 -o ro /dev/vdb /mnt
        mount -t devtmpfs dev /mnt/dev
        mount -t proc proc /mnt/proc
        mount -t sysfs sys /mnt/sys
        mount -t tmpfs tmpfs /mnt/tmp
        for engine in psync libaio; do
            chroot /mnt /usr/bin/fio --name=verify --filename=/dev/vda --rw=randwrite --bs=4k-64k \
                --size=24m --numjobs=2 --offset_increment=32m --ioengine=$engine --iodepth=16 \
                --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --randrepeat=0 \
                --aux-path=/tmp --minimal >/tmp/out || { cat /tmp/out; exit 1; }
        done
        echo verified";
    let guest = QemuGuest::new(script)
        .cpus(2)
        .blk(VhostUser::new(&disk.socket).queues(2))
        .blk(VhostUser::new(&tools_socket));
    let output = guest.run().unwrap().success().unwrap();
    assert!(output.contains("verified"), "{output}");
}

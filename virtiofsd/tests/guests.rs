//! Real guests: what a guest's programs see is what they would see on the host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod mapping;
mod record_locks;
mod share;
mod workout;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::guest::{QemuGuest, UmlGuest};
use lab::need;
use share::{Share, TAG};
use workout::compare::{
    DIRECTORY, WORK_OUT, assert_same, assert_same_but, transcript_at, transcript_in,
};
use workout::differences::{self, BIRTH, FLAGS, HOLES, LABELS, MAPPINGS, RANGES, STRANGERS, TIMES};

/// Where guests mount.
const MOUNT: &str = "/mnt/share";

/// Runs as a process of its own: on the host, and in a guest whose root is the host's.
#[test]
#[ignore = "the other tests run it"]
fn work_out() {
    workout::compare::work_out();
}

fn uml_transcript(share: &Share) -> String {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && \
         {DIRECTORY}={MOUNT} {} {WORK_OUT}",
        program.display()
    );
    let guest = UmlGuest::new(script)
        .fs(&share.socket)
        .limit(Duration::from_secs(120));
    transcript_in(&guest.run().unwrap().success().unwrap())
}

/// The host's root, read-only, is a second file system of ours: the program and its libraries come
/// from there.
fn qemu_transcript(share: &Share) -> String {
    let program = std::env::current_exe().unwrap();
    let root = Share::start_on("fs-root", Path::new("/"), |daemon| daemon.arg("--readonly"));
    let script = format!(
        "mkdir /host && mount -t virtiofs root /host && mount -t proc proc /host/proc && \
         mount -t devtmpfs dev /host/dev && mount -t tmpfs tmpfs /host/mnt && \
         mkdir /host{MOUNT} && mount -t virtiofs share /host{MOUNT} && \
         {DIRECTORY}={MOUNT} chroot /host {} {WORK_OUT}",
        program.display()
    );
    let guest = QemuGuest::new(script)
        .fs(lab::guest::VhostUser::new(&root.socket).queues(2), "root")
        .fs(lab::guest::VhostUser::new(&share.socket).queues(2), "share")
        .cpus(2)
        .memory_mib(512)
        .limit(Duration::from_secs(120));
    transcript_in(&guest.run().unwrap().success().unwrap())
}

fn compare_with_host(options: &[&str], transcript: fn(&Share) -> String, but: &[&str]) {
    need::root().unwrap();
    // The kernel keeps attributes called trusted.* to CAP_SYS_ADMIN.
    let share = Share::start_with("fs-guest", |daemon| {
        daemon.args(options).arg("--modcaps=+sys_admin")
    });
    // Each in a directory of the same name: some targets have it in them.
    let host = transcript_at(&share.scratch.dir("host").unwrap());
    let guest = transcript(&share);
    let but = [but, differences::ACLS, FLAGS, STRANGERS].concat();
    assert_same_but(&host, &guest, &but);
    let said = share.daemon.stderr();
    assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");
}

#[test]
fn files_behave_as_on_the_host() {
    compare_with_host(&[], uml_transcript, &[RANGES, BIRTH].concat());
}

#[test]
fn files_behave_as_on_the_host_under_qemu() {
    compare_with_host(&[], qemu_transcript, &[RANGES, BIRTH, LABELS].concat());
}

/// Nearly all nodes by file handle, as when there are more than the daemon may have open.
#[test]
fn files_behave_as_on_the_host_when_few_may_be_open() {
    let options = &["--max-open", "3"];
    compare_with_host(options, uml_transcript, &[RANGES, BIRTH].concat());
}

/// Nearly all nodes by name, as when there are no file handles either.
#[test]
fn files_behave_as_on_the_host_when_found_by_name() {
    let options = &["--max-open", "3", "--inode-file-handles", "never"];
    compare_with_host(options, uml_transcript, &[RANGES, BIRTH].concat());
}

#[test]
fn files_behave_as_on_the_host_when_all_is_cached() {
    let options = &["--cache", "always"];
    compare_with_host(options, uml_transcript, &[RANGES, BIRTH].concat());
}

#[test]
fn files_behave_as_on_the_host_when_guests_write_back() {
    let options = &["--cache", "always", "--writeback"];
    let but = [RANGES, BIRTH, HOLES, TIMES].concat();
    compare_with_host(options, uml_transcript, &but);
}

#[test]
fn files_behave_as_on_the_host_when_nothing_is_cached() {
    let options = &["--cache", "never"];
    compare_with_host(options, uml_transcript, &[RANGES, BIRTH, MAPPINGS].concat());
}

/// What ACLs let users do and what becomes of them, by the programs that people use.
const ACLS: &str = include_str!("acls.sh");

/// What the script in the directory `at` says on the host.
fn hosts_acls(at: &Path) -> String {
    let output = Command::new("sh")
        .arg("acls.sh")
        .current_dir(at)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn compare_acls(options: &[&str], guests: impl FnOnce(&Share) -> String) {
    need::root().unwrap();
    let share = Share::start_with("fs-acls", |daemon| daemon.arg("--posix-acl").args(options));
    let own = share.scratch.dir("own").unwrap();
    for directory in [&own, &share.directory] {
        fs::write(directory.join("acls.sh"), ACLS).unwrap();
    }
    let host = hosts_acls(&own);
    assert!(host.ends_with("end\n"), "{host}");
    assert_same(&host, &guests(&share).replace('\r', ""));
}

fn uml_acls(share: &Share) -> String {
    let script =
        format!("mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && cd {MOUNT} && sh acls.sh");
    let guest = UmlGuest::new(script)
        .fs(&share.socket)
        .limit(Duration::from_secs(120));
    guest.run().unwrap().success().unwrap()
}

#[test]
fn acls_are_those_of_the_host() {
    compare_acls(&[], uml_acls);
}

#[test]
fn acls_are_those_of_the_host_when_all_is_cached() {
    compare_acls(&["--cache", "always", "--writeback"], uml_acls);
}

#[test]
fn acls_are_those_of_the_host_under_qemu() {
    compare_acls(&[], |share| {
        let root = Share::start_on("fs-root", Path::new("/"), |daemon| daemon.arg("--readonly"));
        let script = format!(
            "mkdir /host && mount -t virtiofs root /host && mount -t proc proc /host/proc && \
             mount -t devtmpfs dev /host/dev && mount -t tmpfs tmpfs /host/mnt && \
             mkdir /host{MOUNT} && mount -t virtiofs share /host{MOUNT} && \
             chroot /host /bin/sh -c 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin && cd {MOUNT} && sh acls.sh'"
        );
        let guest = QemuGuest::new(script)
            .fs(lab::guest::VhostUser::new(&root.socket).queues(2), "root")
            .fs(lab::guest::VhostUser::new(&share.socket).queues(2), "share")
            .memory_mib(512)
            .limit(Duration::from_secs(120));
        guest.run().unwrap().success().unwrap()
    });
}

/// A guest sees what is mounted in the directory as mounts with device numbers of their own.
#[test]
fn a_mount_on_the_host_is_one_in_the_guest() {
    need::root().unwrap();
    let share = Share::start_in_namespace(
        "fs-submount",
        "mkdir sub sub2 && mount -t tmpfs one sub && mkdir sub/inner && mount -t tmpfs two sub2 && \
         echo one > sub/file && echo two > sub2/file && mkdir plain",
        |daemon| daemon.arg("--announce-submounts"),
    );
    let script = format!(
        "mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && cd {MOUNT} && \
         ls -R . > /dev/null && cat sub/file sub2/file && \
         stat -c '%n %d' . plain sub sub/inner sub/file sub2 sub2/file && \
         grep -c ' {MOUNT}/' /proc/mounts; \
         mv sub/file plain/file && cat plain/file && ! ln plain/file sub/file 2>/dev/null && \
         sync && cd / && umount -R {MOUNT} && echo unmounted"
    );
    let guest = UmlGuest::new(script).fs(&share.socket);
    let output = guest.run().unwrap().success().unwrap().replace('\r', "");
    let mut lines = output.lines();
    assert_eq!([lines.next(), lines.next()], [Some("one"), Some("two")]);
    let device: std::collections::HashMap<&str, &str> = lines
        .by_ref()
        .take(7)
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(device["."], device["plain"]);
    assert_eq!(device["sub"], device["sub/inner"]);
    assert_eq!(device["sub"], device["sub/file"]);
    assert_eq!(device["sub2"], device["sub2/file"]);
    assert_ne!(device["."], device["sub"]);
    assert_ne!(device["sub"], device["sub2"]);
    assert_eq!(lines.collect::<Vec<_>>(), ["2", "one", "unmounted"]);
}

/// Checksums, modes and times of a tree.
fn inventory(directory: &Path) -> String {
    let script = "find . -printf '%p %m %U %G %n %l\n' | sort; \
                  find . -not -type d -printf '%p %T@\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_tree_unpacked_in_a_guest_is_the_same_on_the_host() {
    let share = Share::start("fs-tree");
    let script = format!(
        "mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && cd {MOUNT} && \
         tar -C /usr -cf tree.tar include/linux share/zoneinfo/Europe && \
         mkdir tree && tar -C tree -xpf tree.tar && \
         echo 3 > /proc/sys/vm/drop_caches && tar -C tree -df tree.tar && sync && echo compared"
    );
    let guest = UmlGuest::new(script)
        .fs(&share.socket)
        .limit(Duration::from_secs(120));
    let output = guest.run().unwrap().success().unwrap();
    assert!(output.contains("compared"), "{output}");
    let own = share.scratch.dir("own").unwrap();
    let unpacked = Command::new("tar")
        .arg("-C")
        .arg(&own)
        .arg("-xpf")
        .arg(share.directory.join("tree.tar"))
        .status();
    assert!(unpacked.unwrap().success());
    assert_same(&inventory(&own), &inventory(&share.directory.join("tree")));
}

/// QEMU's front end, and the kernel that most people run: with two queues, reading back through
/// both the guest's cache and none.
#[test]
fn a_qemu_guest_reads_and_writes() {
    let share = Share::start("fs-qemu");
    fs::write(share.directory.join("hello"), "from the host\n").unwrap();
    let script = "set -e
        mkdir /mnt/share
        mount -t virtiofs files /mnt/share
        cd /mnt/share
        cat hello
        dd if=/dev/urandom of=random bs=64k count=64 2>/dev/null
        sha256sum random > sums
        echo 3 > /proc/sys/vm/drop_caches
        sha256sum -c sums
        mkdir -p a/b/c && echo deep > a/b/c/deep && ln -s b a/link && ln a/b/c/deep hard
        mv a/b/c/deep a/deep && cat a/deep hard
        truncate -s 10M sparse && fallocate -l 4096 space
        tar -cf - a | tar -tf - | wc -l
        for n in $(seq 300); do : > a/f$n; done
        ls a | wc -l
        rm -r a
        ls
        cd / && umount /mnt/share";
    let guest = QemuGuest::new(script)
        .fs(lab::guest::VhostUser::new(&share.socket).queues(2), "files")
        .cpus(2)
        .limit(Duration::from_secs(120));
    let output = guest.run().unwrap().success().unwrap().replace('\r', "");
    let expected =
        "from the host\nrandom: OK\ndeep\ndeep\n5\n303\nhard\nhello\nrandom\nspace\nsparse\nsums\n";
    assert_eq!(output, expected);
    let sums = Command::new("sha256sum")
        .args(["-c", "sums"])
        .current_dir(&share.directory)
        .output();
    assert!(sums.unwrap().status.success());
}

/// A guest that is killed while it writes, and the next one: what was synced is there, and what the
/// first one had open is not.
#[test]
fn one_guest_after_another_is_served() {
    let share = Share::start("fs-killed");
    let script = format!(
        "mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && cd {MOUNT} && \
         echo synced > synced && sync && exec 5> open && echo writing && \
         while :; do dd if=/dev/zero of=big bs=1M count=64 conv=fsync 2>/dev/null; done"
    );
    let mut first = UmlGuest::new(script).fs(&share.socket).start().unwrap();
    first.wait_output("writing").unwrap();
    drop(first);
    let script = format!(
        "mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && cd {MOUNT} && \
         cat synced && rm -f open big && ls && cd / && umount {MOUNT} && \
         mount -t virtiofs {TAG} {MOUNT} && ls {MOUNT}"
    );
    let output = UmlGuest::new(script).fs(&share.socket).run().unwrap();
    let output = output.success().unwrap().replace('\r', "");
    assert_eq!(output, "synced\nsynced\nsynced\n");
    // The guest's memory, a deleted file too, goes with its connection.
    let deleted = fs::read_dir(format!("/proc/{}/fd", share.daemon.serving_pid().unwrap()))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|target| target.starts_with(&share.directory))
        .filter(|target| target.to_string_lossy().ends_with("(deleted)"))
        .count();
    assert_eq!(deleted, 0, "space is held for files that are gone");
}

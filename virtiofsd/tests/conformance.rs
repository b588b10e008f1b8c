//! What programs do with files through the daemon, on the host's own kernel: the same comes of it as on
//! the bare file system, but for what docs/virtiofs.md lists.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod mapping;
mod mounted;
mod record_locks;
mod share;
mod workout;

use std::path::Path;
use std::process::Command;

use lab::need;
use lab::process::DaemonBuilder;
use mounted::Mounted;
use share::Share;
use workout::compare::{assert_same_but, transcript_at};
use workout::differences::{ACLS, FLAGS, HOLES, MAPPINGS, RANGES, STRANGERS, TIMES};

/// Runs as a process of its own, on the host and on the mount.
#[test]
#[ignore = "the other tests run it"]
fn work_out() {
    workout::compare::work_out();
}

/// What is never as on the host.
const ALWAYS: [&[&str]; 2] = [FLAGS, STRANGERS];

/// The same work on a mount of a share in memory and beside it.
fn compare(options: &[&str], but: &[&[&str]]) {
    let but = [&ALWAYS, but].concat().concat();
    compare_on(
        Share::start_in_memory("conform", |d| with(d, options)),
        &but,
    );
}

/// The same on the disk, where more can be done to files.
fn compare_on_disk(options: &[&str], but: &[&[&str]]) {
    let but = [&ALWAYS, &[RANGES, ACLS][..], but].concat().concat();
    compare_on(Share::start_with("conform", |d| with(d, options)), &but);
}

/// The kernel keeps attributes called trusted.* to CAP_SYS_ADMIN.
fn with(daemon: DaemonBuilder, options: &[&str]) -> DaemonBuilder {
    daemon.args(options).arg("--modcaps=+sys_admin")
}

fn compare_on(share: Share, but: &[&str]) {
    let mut mounted = Mounted::on(share, 2);
    let host = transcript_at(&mounted.share.scratch.dir("host").unwrap());
    let guest = transcript_at(&mounted.at);
    mounted.unmount();
    assert_same_but(&host, &guest, but);
    let said = mounted.share.daemon.stderr();
    assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");
}

#[test]
fn files_behave_as_on_the_host() {
    compare_on_disk(&[], &[]);
    compare(&[], &[ACLS]);
}

#[test]
fn all_is_cached() {
    compare(&["--cache", "always"], &[ACLS]);
}

#[test]
fn nothing_is_cached() {
    compare_on_disk(&["--cache", "never"], &[MAPPINGS]);
}

#[test]
fn metadata_is_cached() {
    compare(&["--cache", "metadata"], &[ACLS, MAPPINGS]);
}

/// The host's kernel is newer than 6.6.
#[test]
fn nothing_is_cached_but_may_be_mapped() {
    compare(&["--cache", "never", "--allow-mmap"], &[ACLS]);
}

#[test]
fn guests_write_back() {
    compare_on_disk(&["--cache", "always", "--writeback"], &[HOLES, TIMES]);
}

#[test]
fn guests_write_back_and_ask_again() {
    compare(&["--cache", "auto", "--writeback"], &[ACLS, HOLES]);
}

/// Nearly all nodes by file handle, as when there are more than the daemon may have open.
#[test]
fn few_may_be_open() {
    compare_on_disk(&["--max-open", "3"], &[]);
}

#[test]
fn files_are_kept_by_handle() {
    compare(&["--inode-file-handles", "mandatory"], &[ACLS]);
}

/// Nearly all nodes by name, as when there are no file handles either.
#[test]
fn files_are_found_by_name() {
    compare_on_disk(&["--max-open", "3", "--inode-file-handles", "never"], &[]);
}

/// Locks, ACLs, direct I/O: what is not done by default.
#[test]
fn what_can_be_asked_for_changes_nothing_else() {
    const ALL: [&str; 6] = [
        "--posix-acl",
        "--posix-lock",
        "--flock",
        "--allow-direct-io",
        "--preserve-noatime",
        "--security-label",
    ];
    compare(&ALL, &[]);
}

/// What ACLs let users do and what becomes of them.
#[test]
fn acls_are_those_of_the_host() {
    need::program("setfacl").unwrap();
    let acls = |directory: &Path| -> String {
        std::fs::write(directory.join("acls.sh"), include_str!("acls.sh")).unwrap();
        let output = Command::new("sh")
            .arg("acls.sh")
            .current_dir(directory)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let kept: [&[&str]; 3] = [
        &[],
        &["--max-open", "3"],
        &["--cache", "always", "--writeback"],
    ];
    for options in kept {
        let share = Share::start_with("conform-acls", |d| d.arg("--posix-acl").args(options));
        let mut mounted = Mounted::on(share, 2);
        let host = acls(&mounted.share.scratch.dir("host").unwrap());
        assert!(host.ends_with("end\n"), "{host}");
        assert_same_but(&host, &acls(&mounted.at), &[]);
        mounted.unmount();
    }
}

/// ext4 gives a file 65,000 links and no more, others many more.
#[test]
fn the_limit_of_links_is_the_hosts() {
    let mut mounted = Mounted::on(Share::start("conform-links"), 1);
    let directory = mounted.share.directory.clone();
    let file = directory.join("file");
    std::fs::write(&file, "").unwrap();
    let link = |n: u32| std::fs::hard_link(&file, directory.join(format!("link-{n}")));
    let last = (0..66_000).map(link).find_map(Result::err);
    let last = last.and_then(|error| error.raw_os_error());
    std::fs::remove_file(directory.join("link-0")).unwrap();
    let link = |name: &str| {
        let made = std::fs::hard_link(mounted.at.join("file"), mounted.at.join(name));
        made.map_err(|error| error.raw_os_error())
    };
    assert_eq!(link("one-more"), Ok(()));
    assert_eq!(link("too-many").err().flatten(), last);
    mounted.unmount();
}

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
mod share;
mod workout;

use mounted::Mounted;
use share::Share;
use workout::compare::{assert_same, transcript_at, without};

/// Runs as a process of its own, on the host and on the mount.
#[test]
#[ignore = "the other tests run it"]
fn work_out() {
    workout::compare::work_out();
}

/// Where the two may differ: nowhere, unless a test says so.
const NOWHERE: &[&str] = &[];

/// The same work on a mount and beside it, on the disk and in memory.
fn compare(options: &[&str], but: &[&str]) {
    // The kernel keeps attributes called trusted.* to CAP_SYS_ADMIN.
    let start =
        |daemon: lab::process::DaemonBuilder| daemon.args(options).arg("--modcaps=+sys_admin");
    for share in [
        Share::start_with("conform-disk", start),
        Share::start_in_memory("conform-memory", start),
    ] {
        let mut mounted = Mounted::on(share, 2);
        let host = transcript_at(&mounted.share.scratch.dir("host").unwrap());
        let guest = transcript_at(&mounted.at);
        mounted.unmount();
        if let Some(at) = std::env::var_os("CONFORM_KEEP") {
            std::fs::write(std::path::Path::new(&at).join("host"), &host).unwrap();
            std::fs::write(std::path::Path::new(&at).join("guest"), &guest).unwrap();
        }
        assert_same(&without(&host, but), &without(&guest, but));
        let said = mounted.share.daemon.stderr();
        assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");
    }
}

#[test]
fn files_behave_as_on_the_host() {
    compare(&[], NOWHERE);
}

#[test]
fn all_is_cached() {
    compare(&["--cache", "always"], NOWHERE);
}

#[test]
fn nothing_is_cached() {
    compare(&["--cache", "never"], NOWHERE);
}

#[test]
fn metadata_is_cached() {
    compare(&["--cache", "metadata"], NOWHERE);
}

#[test]
fn nothing_is_cached_but_may_be_mapped() {
    compare(&["--cache", "never", "--allow-mmap"], NOWHERE);
}

#[test]
fn guests_write_back() {
    compare(&["--cache", "always", "--writeback"], NOWHERE);
}

#[test]
fn guests_write_back_and_ask_again() {
    compare(&["--cache", "auto", "--writeback"], NOWHERE);
}

/// Nearly all nodes by file handle, as when there are more than the daemon may have open.
#[test]
fn few_may_be_open() {
    compare(&["--max-open", "3"], NOWHERE);
}

#[test]
fn files_are_kept_by_handle() {
    compare(&["--inode-file-handles", "mandatory"], NOWHERE);
}

/// Nearly all nodes by name, as when there are no file handles either.
#[test]
fn files_are_found_by_name() {
    compare(
        &["--max-open", "3", "--inode-file-handles", "never"],
        NOWHERE,
    );
}

#[test]
fn with_access_control_lists() {
    compare(&["--posix-acl"], NOWHERE);
}

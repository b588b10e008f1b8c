//! Without root: what an ordinary user can share, and how it is told what it cannot have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use lab::frontend::fs::Fs;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::inside::Process;
use lab::process::Daemon;
use lab::scratch::Scratch;
use share::session::Session;
use share::{PROGRAM, SOON};

/// `nobody`.
const USER: u32 = 65534;

/// First of the ids that the host lends to the user.
const LENT: u32 = 300_000;

struct Home {
    scratch: Scratch,
    program: PathBuf,
    socket: PathBuf,
    shared: PathBuf,
}

impl Home {
    fn new(test: &str) -> Self {
        lab::need::root().unwrap();
        let scratch = Scratch::new(test).unwrap();
        let open = PermissionsExt::from_mode(0o777);
        fs::set_permissions(scratch.path(), open).unwrap();
        let shared = scratch.dir("shared").unwrap();
        chown(&shared, Some(USER), Some(USER)).unwrap();
        // The build directory may be closed to others: run a copy.
        let program = scratch.join("virtiofsd");
        fs::copy(PROGRAM, &program).unwrap();
        let socket = scratch.join("s");
        Self {
            scratch,
            program,
            socket,
            shared,
        }
    }

    /// As the user, in a mount namespace where /etc/subuid and /etc/subgid lend ids to it.
    fn start<A: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = A>) -> Daemon {
        let lends = format!("{USER}:{LENT}:65536\n");
        let lends = self.scratch.file("lends", lends).unwrap();
        let script = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && \
                      exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
        Daemon::builder("/usr/bin/unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(lends)
            .arg(&self.program)
            .arg("--socket-path")
            .arg(&self.socket)
            .arg("--shared-dir")
            .arg(&self.shared)
            .args(options)
            .spawn()
            .unwrap()
    }

    fn serve(&self, options: &[&str]) -> (Daemon, FrontEnd, Fs) {
        let mut daemon = self.start(options);
        daemon.wait_stderr("waiting for a front end", SOON).unwrap();
        let mut front_end = FrontEnd::connect(&self.socket, SOON).unwrap();
        let memory = GuestMemory::with_size(8 << 20).unwrap();
        front_end.handshake(u64::MAX, ProtocolFeatures::MQ).unwrap();
        front_end.set_mem_table(&memory).unwrap();
        let mut fs = Fs::new(front_end.set_up_queue(1, 64).unwrap());
        fs.init(38, 0).unwrap();
        (daemon, front_end, fs)
    }

    fn owner(&self, name: &str) -> (u32, u32) {
        let status = fs::symlink_metadata(self.shared.join(name)).unwrap();
        (status.uid(), status.gid())
    }

    fn says(&self, options: &[&str], what: &str) {
        let exit = self.start(options).wait_exit(SOON).unwrap();
        assert!(!exit.status.success(), "{options:?} was accepted");
        assert!(
            exit.stderr.contains(what),
            "{options:?} gave:\n{}",
            exit.stderr
        );
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
        assert!(!self.socket.exists(), "{options:?} left the socket");
    }
}

fn map(inside: &Process, file: &str) -> Vec<u32> {
    let numbers = inside.text(file);
    numbers
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect()
}

/// A namespace of its own, with one's own id only: files are one's own, and none can be given away.
#[test]
fn its_own_id_is_all_there_is() {
    let home = Home::new("fs-rootless");
    let (mut daemon, _front_end, mut driver) = home.serve(&[]);
    let inside = Process::serving(&daemon);
    for kind in ["user", "mnt", "pid", "net", "ipc"] {
        let ours = Process::of(std::process::id()).namespace(kind);
        assert_ne!(inside.namespace(kind), ours, "{kind}");
    }
    assert_eq!(map(&inside, "uid_map"), [USER, USER, 1]);
    assert_eq!(map(&inside, "gid_map"), [USER, USER, 1]);
    assert_eq!(inside.text("mountinfo").lines().count(), 1);
    let sys_admin = 1 << 21;
    assert_eq!(inside.capabilities("CapBnd") & sys_admin, 0);

    let mut session = Session(&mut driver);
    let (node, owner) = session.create_as(USER, "file").unwrap();
    assert_eq!((owner, home.owner("file")), ((USER, USER), (USER, USER)));
    // Whoever asks in the guest: the daemon's user makes it.
    session.create_as(0, "root's").unwrap();
    assert_eq!(home.owner("root's"), (USER, USER));
    let refused = session.chown(node, 1000, 1000).unwrap_err();
    assert!([libc::EPERM, libc::EINVAL].contains(&refused), "{refused}");
    assert_eq!(session.chown(node, USER, USER), Ok((USER, USER)));
    let exit = daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!home.socket.exists());
}

/// The guest's root is the user.
#[test]
fn its_own_id_can_be_the_guests_root() {
    let home = Home::new("fs-rootless-0");
    let options = ["--uid-map=:0:65534:1:", "--gid-map=:0:65534:1:"];
    let (daemon, _front_end, mut driver) = home.serve(&options);
    assert_eq!(map(&Process::serving(&daemon), "uid_map"), [0, USER, 1]);
    let mut session = Session(&mut driver);
    let (node, owner) = session.create_as(0, "file").unwrap();
    assert_eq!((owner, home.owner("file")), ((0, 0), (USER, USER)));
    let root = session.lookup("file").unwrap();
    assert_eq!(session.owner(root), Ok((0, 0)));
    // There is no other user in this namespace.
    assert_eq!(session.create_as(1000, "other"), Err(libc::EPERM));
    assert_eq!(session.chown(node, 1000, 0), Err(libc::EINVAL));
}

/// Ids that the host lends: the guest has users, and the host sees them shifted.
#[test]
fn lent_ids_are_the_guests_users() {
    lab::need::program("newuidmap").unwrap();
    lab::need::program("newgidmap").unwrap();
    let home = Home::new("fs-rootless-map");
    chown(&home.shared, Some(LENT), Some(LENT)).unwrap();
    let maps = [
        format!("--uid-map=:0:{LENT}:65536:"),
        format!("--gid-map=:0:{LENT}:65536:"),
    ];
    let options: Vec<&str> = maps.iter().map(String::as_str).collect();
    let (mut daemon, _front_end, mut driver) = home.serve(&options);
    let inside = Process::serving(&daemon);
    assert_eq!(map(&inside, "uid_map"), [0, LENT, 65536]);
    assert_eq!(
        inside.status("Uid"),
        format!("{LENT}\t{LENT}\t{LENT}\t{LENT}")
    );
    let mut session = Session(&mut driver);
    let (node, owner) = session.create_as(1000, "file").unwrap();
    assert_eq!(
        (owner, home.owner("file")),
        ((1000, 1000), (LENT + 1000, LENT + 1000))
    );
    assert_eq!(session.chown(node, 7, 8), Ok((7, 8)));
    assert_eq!(home.owner("file"), (LENT + 7, LENT + 8));
    assert_eq!(session.chown(node, 70_000, 8), Err(libc::EINVAL));
    // The process outside has another user's name than the one inside, and still ends it.
    let exit = daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!home.socket.exists());
}

/// Without a namespace, one id for all who ask; shown as another one.
#[test]
fn translation_needs_no_namespace() {
    let home = Home::new("fs-rootless-ids");
    let (_daemon, _front_end, mut driver) = home.serve(&[
        "--sandbox=none",
        "--translate-uid=squash-guest:0:65534:4294967295",
        "--translate-gid=squash-guest:0:65534:4294967295",
        "--translate-uid=host:65534:1000:1",
        "--translate-gid=host:65534:1000:1",
    ]);
    let mut session = Session(&mut driver);
    for user in [0, 5, 1000] {
        let name = format!("file-{user}");
        let (node, owner) = session.create_as(user, &name).unwrap();
        assert_eq!((owner, home.owner(&name)), ((1000, 1000), (USER, USER)));
        assert_eq!(session.chown(node, 5, 5), Ok((1000, 1000)));
    }
}

#[test]
fn what_it_cannot_have_is_said() {
    let home = Home::new("fs-rootless-no");
    home.says(&["--sandbox", "chroot"], "--sandbox chroot needs root");
    home.says(
        &["--sandbox", "none", "--uid-map=:0:65534:1:"],
        "--uid-map and --gid-map are for an ordinary user with --sandbox namespace",
    );
    home.says(
        &["--modcaps=+sys_admin"],
        "this process has no CAP_SYS_ADMIN to keep",
    );
    home.says(&["--rlimit-nofile=999999999"], "--rlimit-nofile");
    // Ids that nobody lends.
    home.says(&["--uid-map=:0:1:1:"], "the ids cannot be mapped");
    home.says(
        &["--inode-file-handles=mandatory"],
        "cannot be opened by file handle",
    );
}

/// Without the helpers, maps of one's own id work and others are told what is missing.
#[test]
fn a_missing_helper_is_named() {
    let home = Home::new("fs-rootless-tool");
    let mut daemon = Daemon::builder("/usr/bin/setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(&home.program)
        .args(["--uid-map=:0:300000:10:", "--socket-path"])
        .arg(&home.socket)
        .arg("--shared-dir")
        .arg(&home.shared)
        .env("PATH", "/nowhere")
        .spawn()
        .unwrap();
    let exit = daemon.wait_exit(Duration::from_secs(10)).unwrap();
    assert!(
        exit.stderr.contains("newuidmap cannot be run"),
        "{}",
        exit.stderr
    );
    assert!(exit.stderr.contains("package uidmap"), "{}", exit.stderr);
}

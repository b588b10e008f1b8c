//! A guest moves from one daemon to another (VHOST_USER_PROTOCOL_F_DEVICE_STATE).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use lab::bridge::Journal;
use lab::frontend::fs::{Fs, REQUEST_QUEUE};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::medium::Medium;
use share::session::{ENTRY, ROOT, Session, number, words};
use share::{SOON, Share};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostTransferStateDirection, VhostTransferStatePhase};
use virtiofsd::fuse::Opcode;

const STOPPED: VhostTransferStatePhase = VhostTransferStatePhase::STOPPED;

fn front_end(share: &Share, memory: &GuestMemory) -> FrontEnd {
    let mut front_end = FrontEnd::connect(&share.socket, SOON).unwrap();
    let protocol = ProtocolFeatures::CONFIG
        | ProtocolFeatures::MQ
        | ProtocolFeatures::REPLY_ACK
        | ProtocolFeatures::DEVICE_STATE;
    let agreed = front_end
        .handshake(u64::MAX | features::VERSION_1, protocol)
        .unwrap();
    assert!(
        agreed
            .protocol_features
            .contains(ProtocolFeatures::DEVICE_STATE)
    );
    front_end.set_mem_table(memory).unwrap();
    front_end
}

/// A guest that has mounted.
struct Guest {
    memory: GuestMemory,
    front_end: FrontEnd,
    fs: Fs,
}

impl Guest {
    fn start(share: &Share) -> Self {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = front_end(share, &memory);
        let mut fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 128).unwrap());
        fs.init(38, 0).unwrap();
        Self {
            memory,
            front_end,
            fs,
        }
    }

    fn session(&mut self) -> Session<'_> {
        Session(&mut self.fs)
    }

    /// Stops and takes the state; `None` if the daemon refuses.
    fn save(&mut self) -> Option<Vec<u8>> {
        self.front_end.stop_queue(REQUEST_QUEUE).unwrap();
        transfer(&mut self.front_end, Transfer::Save)
    }

    /// Goes on at another daemon, which has the state.
    fn go_on(&mut self, share: &Share, state: Vec<u8>) -> bool {
        let mut front_end = front_end(share, &self.memory);
        let loaded = transfer(&mut front_end, Transfer::Load(state)).is_some();
        if loaded {
            let queue = self.fs.queue_mut();
            front_end
                .attach_queue(queue, queue.used_idx().unwrap())
                .unwrap();
            self.front_end = front_end;
        }
        loaded
    }
}

enum Transfer {
    Save,
    Load(Vec<u8>),
}

/// Bytes that came; `None` if the daemon says that it went wrong.
fn transfer(front_end: &mut FrontEnd, what: Transfer) -> Option<Vec<u8>> {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (direction, theirs): (_, OwnedFd) = match &what {
        Transfer::Save => (
            VhostTransferStateDirection::SAVE,
            writer.try_clone().unwrap().into(),
        ),
        Transfer::Load(_) => (
            VhostTransferStateDirection::LOAD,
            reader.try_clone().unwrap().into(),
        ),
    };
    let begun = front_end.request("SET_DEVICE_STATE_FD", |vhost| {
        vhost.set_device_state_fd(direction, STOPPED, theirs)
    });
    begun.ok()?;
    let mut bytes = Vec::new();
    match what {
        Transfer::Save => {
            drop(writer);
            File::from(OwnedFd::from(reader))
                .read_to_end(&mut bytes)
                .unwrap();
        }
        Transfer::Load(state) => {
            drop(reader);
            writer.write_all(&state).unwrap();
            drop(writer);
        }
    }
    let checked = front_end.request("CHECK_DEVICE_STATE", |vhost| vhost.check_device_state());
    checked.ok().map(|()| bytes)
}

fn mkdir(session: &mut Session<'_>, parent: u64, name: &str) -> u64 {
    let body: &[&[u8]] = &[&words(&[0o755, 0]), name.as_bytes(), b"\0"];
    let reply = session.call(Opcode::Mkdir, parent, body, ENTRY);
    assert_eq!(reply.error, 0);
    number(&reply.body, 0)
}

fn lookup(session: &mut Session<'_>, parent: u64, name: &str) -> Result<u64, i32> {
    let reply = session.call(Opcode::Lookup, parent, &[name.as_bytes(), b"\0"], ENTRY);
    match reply.error {
        0 => Ok(number(&reply.body, 0)),
        error => Err(-error),
    }
}

/// Two daemons, and what the guest had at the first is there at the second.
fn goes_on(test: &str, options: &[&str]) {
    let mut from = Share::start_with(&format!("{test}-from"), |daemon| daemon.args(options));
    let to = Share::start_on(&format!("{test}-to"), &from.directory, |daemon| {
        daemon.args(options)
    });
    let mut guest = Guest::start(&from);
    let mut session = guest.session();
    let above = mkdir(&mut session, ROOT, "above");
    let directory = mkdir(&mut session, above, "directory");
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"before ").error, 0);
    // Where it is now, not where it was found.
    fs::rename(
        from.directory.join("file"),
        from.directory.join("above/directory/moved"),
    )
    .unwrap();
    assert_eq!(lookup(&mut session, directory, "moved"), Ok(file.0));
    // Not known to the guest any more, and on the way to what is.
    session.forget(above, 1);
    let opened = session.call(Opcode::Opendir, directory, &[&words(&[0, 0])], 16);
    let listing = number(&opened.body, 0);
    let state = guest.save().unwrap();
    assert!(guest.go_on(&to, state));
    from.daemon.terminate(SOON).unwrap();

    let mut session = guest.session();
    assert_eq!(session.write(file, 7, b"after").error, 0);
    assert_eq!(session.read(file, 0, 100).body, b"before after");
    assert_eq!(lookup(&mut session, directory, "moved"), Ok(file.0));
    let body = share::session::transfer(listing, 0, 4096);
    let listed = session.call(Opcode::Readdir, directory, &[&body], 4096);
    assert!(listed.error == 0 && !listed.body.is_empty());
    let new = session.create("new");
    assert!(new.0 != file.0 && new.0 != directory && new.1 != file.1);
    session.forget(directory, 1);
    let gone = session.call(Opcode::Getattr, directory, &[&[0; 16]], 104);
    assert_eq!(-gone.error, libc::ESTALE, "counted once");
}

#[test]
fn a_guest_goes_on_by_paths() {
    goes_on("migration-paths", &[]);
    goes_on("migration-verified", &["--migration-verify-handles"]);
    let few = ["--max-open", "1", "--inode-file-handles", "never"];
    goes_on("migration-names", &few);
    goes_on("migration-open", &["--sandbox", "none"]);
}

#[test]
fn a_guest_goes_on_by_file_handles() {
    goes_on("migration-handles", &["--migration-mode", "file-handles"]);
}

#[test]
fn another_copy_of_the_directory_will_do() {
    let from = Share::start("migration-copy-from");
    let to = Share::start("migration-copy-to");
    let mut guest = Guest::start(&from);
    let file = guest.session().create("file");
    fs::write(to.directory.join("file"), "the copy").unwrap();
    let state = guest.save().unwrap();
    assert!(guest.go_on(&to, state));
    assert_eq!(guest.session().read(file, 0, 100).body, b"the copy");
}

#[test]
fn what_cannot_move_ends_the_migration_or_is_an_error() {
    for (policy, moves) in [("abort", false), ("guest-error", true)] {
        let options = ["--migration-on-error", policy];
        let from = Share::start_with("migration-gone-from", |daemon| daemon.args(options));
        let mut guest = Guest::start(&from);
        let (gone, kept) = (
            guest.session().create("gone"),
            guest.session().create("kept"),
        );
        fs::remove_file(from.directory.join("gone")).unwrap();
        let state = guest.save();
        assert_eq!(state.is_some(), moves, "{policy}");
        // Where it was it goes on all the same.
        let queue = guest.fs.queue_mut();
        let base = queue.used_idx().unwrap();
        guest.front_end.attach_queue(queue, base).unwrap();
        assert_eq!(guest.session().write(gone, 0, b"x").error, 0);
        let Some(state) = state else { continue };
        guest.front_end.stop_queue(REQUEST_QUEUE).unwrap();
        let to = Share::start_on("migration-gone-to", &from.directory, |daemon| {
            daemon.args(options)
        });
        assert!(guest.go_on(&to, state));
        let mut session = guest.session();
        assert_ne!(session.read(gone, 0, 1).error, 0);
        assert_eq!(session.write(kept, 0, b"x").error, 0);
    }
}

#[test]
fn what_is_missing_there_ends_the_migration() {
    let (from, to) = (
        Share::start("migration-missing-from"),
        Share::start("migration-missing-to"),
    );
    let mut guest = Guest::start(&from);
    guest.session().create("file");
    let state = guest.save().unwrap();
    assert!(!guest.go_on(&to, state));
    assert!(to.daemon.stderr().contains("a node is not here"));
    to.assert_serves();
}

#[test]
fn strange_states_are_refused() {
    let to = Share::start("migration-strange");
    let memory = GuestMemory::with_size(1 << 20).unwrap();
    let mut front_end = front_end(&to, &memory);
    for state in [Vec::new(), vec![0xff; 100_000]] {
        assert!(transfer(&mut front_end, Transfer::Load(state)).is_none());
    }
    let checked = front_end.request("CHECK_DEVICE_STATE", |vhost| vhost.check_device_state());
    assert!(checked.is_err(), "no transfer was begun");
    drop(front_end);
    // Handles are for those who ask for them.
    let from = Share::start_with("migration-strange-from", |daemon| {
        daemon.args(["--migration-mode", "file-handles"])
    });
    let mut guest = Guest::start(&from);
    guest.session().create("file");
    let state = guest.save().unwrap();
    assert!(!guest.go_on(&to, state));
    to.assert_serves();
}

/// On a network file system the other host sees what is on the server, and what this one brings there later
/// would overwrite what the guest writes by the other one.
#[test]
fn what_was_written_is_on_stable_storage_before_the_guest_goes_on_elsewhere() {
    let medium = Medium::new("migration-sync");
    let from = Share::start_on("migration-sync-from", &medium.mount, |daemon| daemon);
    let mut guest = Guest::start(&from);
    let mut session = guest.session();
    let file = session.create("file");
    assert_eq!(session.write(file, 0, b"content").error, 0);
    let written = medium.journal.len();
    assert!(guest.save().is_some());
    let synced = Journal::durable(&medium.journal.events());
    assert_eq!((written > 0, synced), (true, written));
}

#[test]
fn a_running_queue_is_not_saved() {
    let share = Share::start("migration-running");
    let mut guest = Guest::start(&share);
    assert!(transfer(&mut guest.front_end, Transfer::Save).is_none());
    assert!(Path::new(&share.socket).exists());
    guest.session().create("file");
}

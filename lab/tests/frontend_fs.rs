//! The front end and the FUSE driver against a daemon that none of us wrote.

use std::error::Error;
use std::time::Duration;

use lab::frontend::fs::{Caller, Fs, REQUEST_QUEUE, opcode, u64_at};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::process::Daemon;
use lab::scratch::Scratch;

const SECOND: Duration = Duration::from_secs(1);
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

#[test]
fn a_name_is_looked_up_over_fuse() -> Result<(), Box<dyn Error>> {
    lab::need::root()?;
    let scratch = Scratch::new("fs")?;
    let (shared, socket) = (scratch.dir("shared")?, scratch.join("fs.sock"));
    std::fs::write(shared.join("hello"), "hello")?;
    let _daemon = Daemon::builder(lab::need::file(
        "/usr/lib/qemu/virtiofsd",
        "qemu-system-common",
    )?)
    .arg(format!("--socket-path={}", socket.display()))
    .args([
        "-o",
        &format!("source={}", shared.display()),
        "-o",
        "sandbox=chroot",
    ])
    .spawn_listening(&socket, 5 * SECOND)?;

    let memory = GuestMemory::with_size(16 << 20)?;
    let mut front_end = FrontEnd::connect(&socket, 5 * SECOND)?;
    front_end.handshake(features::VERSION_1, ProtocolFeatures::REPLY_ACK)?;
    front_end.set_mem_table(&memory)?;
    let _urgent = front_end.set_up_queue(0, 128)?;
    let mut files = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 128)?);

    let session = files.init(36, 0)?;
    assert_eq!(session.major, 7);
    assert!(session.max_write >= 4096, "{session:?}");

    let found = files.request(opcode::LOOKUP, Caller::root(1), &[b"hello\0"], 128)?;
    assert_eq!(found.error, 0);
    // struct fuse_entry_out: the inode comes first, its attributes from byte 40 on, size second.
    assert_eq!(u64_at(&found.body, 48), Some(5));
    let missing = files.request(opcode::LOOKUP, Caller::root(1), &[b"no-such\0"], 128)?;
    assert_eq!(missing.error, -ENOENT);
    let inode = u64_at(&found.body, 0).ok_or("no inode")?;
    files.notify(opcode::FORGET, Caller::root(inode), &1_u64.to_le_bytes())?;
    assert_eq!(
        files.request(999, Caller::root(1), &[], 128)?.error,
        -ENOSYS
    );
    Ok(())
}

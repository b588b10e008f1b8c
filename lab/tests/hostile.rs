//! Each hostile operation reaches the device: QEMU's daemon notices and stays alive.

use std::error::Error;
use std::time::Duration;

use lab::frontend::{
    Descriptor, DriverQueue, FrontEnd, GuestAddress, GuestMemory, ProtocolFeatures, Result,
    descriptor_flags, features,
};
use lab::process::Daemon;
use lab::scratch::Scratch;

const SECOND: Duration = Duration::from_secs(1);

type Hostile = fn(&mut DriverQueue, GuestAddress) -> Result<()>;

/// What is done, and what QEMU says about it.
const OPERATIONS: &[(&str, &str, Hostile)] = &[
    ("loop", "Looped descriptor", |queue, buffer| {
        queue.submit_loop(buffer, 4)
    }),
    ("next out of range", "Desc next is 16", |queue, buffer| {
        queue.submit_next_out_of_range(buffer)
    }),
    ("nested indirect", "missing headers", |queue, buffer| {
        queue.submit_nested_indirect(buffer)
    }),
    (
        "bad indirect length",
        "Invalid size for indirect",
        |queue, buffer| queue.submit_indirect_bad_len(buffer),
    ),
    (
        "head out of range",
        "index 9999 is available",
        |queue, _| queue.submit_head(9999),
    ),
    ("avail overflow", "zero sized buffers", |queue, _| {
        queue.overflow_avail()
    }),
    ("bad address", "invalid address for buffers", |queue, _| {
        let (addr, len) = (u64::MAX - 4096, 16);
        queue.submit_raw(
            0,
            &[Descriptor {
                addr,
                len,
                ..Descriptor::default()
            }],
        )
    }),
    ("zero lengths", "zero sized buffers", |queue, buffer| {
        let (addr, flags) = (buffer.0, descriptor_flags::WRITE);
        queue.submit_raw(
            0,
            &[Descriptor {
                addr,
                len: 0,
                flags,
                next: 0,
            }],
        )
    }),
];

#[test]
fn every_operation_is_noticed_by_the_device() -> std::result::Result<(), Box<dyn Error>> {
    for (name, complaint, operation) in OPERATIONS {
        let scratch = Scratch::new("hostile")?;
        let (image, socket) = (scratch.image("disk", 1 << 20)?, scratch.join("blk.sock"));
        let mut daemon = Daemon::builder(lab::need::program("qemu-storage-daemon")?)
            .args([
                "--blockdev",
                &format!("driver=file,node-name=d,filename={}", image.display()),
            ])
            .arg("--export")
            .arg(format!(
                "type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path={}",
                socket.display()
            ))
            .spawn_listening(&socket, 5 * SECOND)?;
        let memory = GuestMemory::with_size(1 << 20)?;
        let mut front_end = FrontEnd::connect(&socket, SECOND)?;
        let wanted = features::VERSION_1 | features::INDIRECT_DESC;
        front_end.handshake(wanted, ProtocolFeatures::REPLY_ACK)?;
        front_end.set_mem_table(&memory)?;
        let mut queue = front_end.set_up_queue(0, 16)?;
        operation(&mut queue, memory.alloc(4096, 4096)?)?;
        daemon
            .wait_stderr(complaint, SECOND)
            .map_err(|error| format!("{name}: {error}"))?;
        assert!(daemon.is_running(), "{name}");
    }
    Ok(())
}

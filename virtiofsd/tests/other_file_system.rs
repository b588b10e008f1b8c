//! A file system that is not ours, written for fuse-backend-rs's trait, served by our daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{Attr, CreateIn};
use fuse_backend_rs::api::filesystem::{
    Context, Entry, FileSystem, OpenOptions, ZeroCopyReader, ZeroCopyWriter,
};
use lab::frontend::fs::Fs;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::scratch::Scratch;
use share::SOON;
use share::session::{ENTRY, OPEN, ROOT, Session, words};
use vhost_daemon::listen::Endpoint;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::session::{Service, serve};
use vhost_daemon::shutdown::Shutdown;
use vhost_daemon::worker::PollPolicy;
use virtiofsd::device::FsDevice;
use virtiofsd::file_system::GuestFileSystem;
use virtiofsd::fuse::Opcode;
use virtiofsd::helpers::Helpers;
use virtiofsd::server::Server;

/// One file, in memory.
#[derive(Default)]
struct OneFile(Mutex<Vec<u8>>);

impl GuestFileSystem for OneFile {}

impl FileSystem for OneFile {
    type Inode = u64;
    type Handle = u64;

    fn create(
        &self,
        _: &Context,
        _: u64,
        _: &CStr,
        _: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        let attr = Attr {
            ino: 2,
            mode: libc::S_IFREG | 0o600,
            ..Default::default()
        };
        let entry = Entry {
            inode: 2,
            attr: attr.into(),
            ..Default::default()
        };
        Ok((entry, Some(5), OpenOptions::empty(), None))
    }

    fn read(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        out: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        let content = self.0.lock().unwrap();
        let start = content.len().min(usize::try_from(offset).unwrap());
        let end = content.len().min(start + size as usize);
        assert!(out.available_bytes() >= end - start);
        out.write_all(&content[start..end])?;
        Ok(end - start)
    }

    fn write(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        data: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        let mut content = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let end = start + size as usize;
        let len = content.len().max(end);
        content.resize(len, 0);
        data.read_exact(&mut content[start..end])?;
        Ok(size as usize)
    }
}

#[test]
fn data_go_through_its_own_read_and_write() {
    let scratch = Scratch::new("fs-other").unwrap();
    let socket = scratch.join("s");
    let helpers = Helpers::start(1, || Ok::<_, Infallible>(())).unwrap();
    let device = Arc::new(FsDevice::new(
        Server::new(OneFile::default()),
        helpers,
        "one".to_owned(),
        1,
    ));
    let service = Service {
        endpoint: Endpoint::Path(socket.clone()),
        once: true,
        poll: "auto".parse::<PollPolicy>().unwrap(),
        metrics: Arc::new(Metrics::default()),
    };
    let daemon = std::thread::spawn(move || serve(&device, service, &Shutdown::new().unwrap()));
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = FrontEnd::connect(&socket, SOON).unwrap();
    front_end.handshake(u64::MAX, ProtocolFeatures::MQ).unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let mut fs = Fs::new(front_end.set_up_queue(1, 64).unwrap());
    fs.exchange().set_timeout(Duration::from_secs(5));
    fs.init(38, 0).unwrap();
    let mut session = Session(&mut fs);
    let file = session.create("any");
    let content: Vec<u8> = (0..300_000).map(|n: u32| n.to_le_bytes()[1]).collect();
    assert_eq!(session.write(file, 10, &content).error, 0);
    let read = session.read(file, 0, 1 << 20);
    assert_eq!((read.error, read.body.len()), (0, 300_010));
    assert!(read.body[10..] == content[..]);
    assert_eq!(session.read(file, 300_008, 4096).body, content[299_998..]);
    assert_eq!(session.lookup("any"), Err(-libc::ENOSYS));
    let arguments = words(&[libc::O_RDWR.cast_unsigned(), 0o100_600, 0, 0]);
    let unnamed = session.call(Opcode::Tmpfile, ROOT, &[&arguments, b"/\0"], ENTRY + OPEN);
    assert_eq!(unnamed.error, -libc::ENOSYS, "a kernel that asks no more");
    drop((front_end, fs));
    daemon.join().unwrap().unwrap();
}

//! Requests that no kernel would send.

use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Interrupt, Reply, Request, Server, Work};
use crate::fuse::abi::{InHeader, InitIn, InitOut};
use crate::fuse::{Features, Opcode, ROOT};
use crate::passthrough::{Config, Passthrough};
use crate::sys::{bytes_of, read_front};

fn server() -> (TempDir, Server<Passthrough>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("shared")).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let config = Config::new(dir.path().join("shared"));
    (dir, Server::new(Passthrough::open(config).unwrap()))
}

fn call(
    server: &Server<Passthrough>,
    header: InHeader,
    body: &[u8],
    room: usize,
) -> (std::io::Result<Work>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut reply = Reply::new(&mut bytes, room);
    let result = match Request::decode(&header, body) {
        Ok(Some(mut request)) => server.serve(&mut request, &mut reply),
        Ok(None) => Err(ErrorKind::Unsupported.into()),
        Err(malformed) => Err(malformed.into()),
    };
    (result, bytes)
}

fn header(opcode: Opcode, nodeid: u64) -> InHeader {
    InHeader {
        opcode: opcode as u32,
        nodeid,
        ..Default::default()
    }
}

fn init(server: &Server<Passthrough>, minor: u32, offered: Features) -> std::io::Result<InitOut> {
    let (flags, flags2) = offered.words();
    let input = InitIn {
        major: 7,
        minor,
        max_readahead: 4096,
        flags,
    };
    let mut body = bytes_of(&input).to_vec();
    body.extend_from_slice(&flags2.to_le_bytes());
    body.resize(64, 0);
    let (result, bytes) = call(server, header(Opcode::Init, 0), &body, 1000);
    result?;
    Ok(read_front(&bytes[16..]).unwrap().0)
}

#[test]
fn versions_and_features_are_agreed_on() {
    let (_dir, server) = server();
    let all = Features::from_bits(u64::MAX);
    // A newer kernel speaks as this server does, an older one as it can.
    for (kernel, agreed) in [(99, crate::fuse::MINOR), (44, 44)] {
        let output = init(&server, kernel, all).unwrap();
        assert_eq!(
            (output.major, output.minor, output.max_write),
            (7, agreed, 1 << 20)
        );
    }
    let output = init(&server, 44, all).unwrap();
    assert_eq!(output.max_pages, 256);
    let agreed = Features::from_words(output.flags, output.flags2);
    assert!(agreed.contains(Features::INIT_EXT | Features::CREATE_SUPP_GROUP));
    assert!(agreed.contains(Features::HANDLE_KILLPRIV_V2 | Features::DO_READDIRPLUS));
    for never in [
        Features::POSIX_LOCKS,
        Features::WRITEBACK_CACHE,
        Features::PASSTHROUGH,
    ] {
        assert!(!agreed.contains(never));
    }
    // Without INIT_EXT there is no second word.
    let old = init(&server, 31, Features::from_bits(0xffff_ffff_bfff_ffff)).unwrap();
    assert_eq!((old.minor, old.flags2), (31, 0));
    assert!(init(&server, 26, all).is_err());
}

#[test]
fn nothing_is_served_before_init() {
    let (_dir, server) = server();
    let (result, _) = call(&server, header(Opcode::Getattr, ROOT), &[0; 16], 1000);
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    let (result, _) = call(&server, header(Opcode::Forget, ROOT), &[0; 8], 0);
    assert!(matches!(result, Ok(Work::Silent)));
}

/// A reply that does not fit leaves no lookup behind that the guest does not know of.
#[test]
fn no_room_means_nothing_done() {
    let (dir, server) = server();
    init(&server, 38, Features::NONE).unwrap();
    std::fs::write(dir.path().join("shared/file"), "").unwrap();
    for room in [0, 15, 16, 143] {
        let (result, _) = call(&server, header(Opcode::Lookup, ROOT), b"file\0", room);
        assert!(result.is_err());
        let body = [&[0; 8][..], b"dir\0"].concat();
        let (result, _) = call(&server, header(Opcode::Mkdir, ROOT), &body, room);
        assert!(result.is_err());
    }
    // A reply that is a header only needs room for that.
    for room in [0, 15] {
        let (result, _) = call(&server, header(Opcode::Unlink, ROOT), b"file\0", room);
        assert!(result.is_err());
    }
    assert_eq!(server.file_system().inode_count(), 1);
    assert!(!dir.path().join("shared/dir").exists());
    let (result, _) = call(&server, header(Opcode::Lookup, ROOT), b"file\0", 144);
    assert!(result.is_ok());
}

#[test]
fn what_is_not_served_has_the_errno_that_kernels_expect() {
    let (_dir, server) = server();
    init(&server, 38, Features::NONE).unwrap();
    for (opcode, errno) in [
        (Opcode::Getlk, libc::ENOSYS),
        (Opcode::Setlkw, libc::ENOSYS),
        (Opcode::Ioctl, libc::ENOTTY),
        (Opcode::Poll, libc::ENOSYS),
        (Opcode::SetupMapping, libc::ENOSYS),
    ] {
        let (result, _) = call(&server, header(opcode, ROOT), &[0; 64], 1000);
        assert_eq!(
            result.unwrap_err().raw_os_error(),
            Some(errno),
            "{opcode:?}"
        );
    }
}

/// An interrupt may cross the answer to its request, and then waits for one that never comes.
#[test]
fn an_interrupt_of_the_last_mount_ends_no_request_of_the_next() {
    let (_dir, server) = server();
    init(&server, 38, Features::NONE).unwrap();
    let unique = 7_u64.to_le_bytes();
    let (result, _) = call(&server, header(Opcode::Interrupt, 0), &unique, 0);
    assert!(matches!(result, Ok(Work::Silent)));
    init(&server, 38, Features::NONE).unwrap();
    let waiting = Arc::new(Interrupt::new(|| ()));
    server.waits(7, &waiting);
    assert!(!waiting.is_raised());
}

fn any_request() -> impl Strategy<Value = (InHeader, Vec<u8>, usize)> {
    let node = prop_oneof![Just(ROOT), 0..6u64, any::<u64>()];
    // Numbers and names in all places: much of it decodes.
    let word = prop_oneof![
        Just(vec![0; 8]),
        Just(b"a\0".to_vec()),
        Just(b"bb\0".to_vec()),
        Just(b"..\0".to_vec()),
        Just(b"../secret\0".to_vec()),
        Just(b"user.x\0".to_vec()),
        any::<u64>().prop_map(|number| number.to_le_bytes().to_vec()),
        (0..5u64).prop_map(|number| number.to_le_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let body = proptest::collection::vec(word, 0..14).prop_map(|words| words.concat());
    let extensions = prop_oneof![3 => Just(0), 1 => 0..9u32];
    let opcode = 1..=Opcode::CopyFileRange64 as u32;
    let header = (opcode, node, 0..3u32, extensions);
    let header = header.prop_map(|(opcode, nodeid, uid, padding)| InHeader {
        opcode,
        nodeid,
        uid,
        gid: uid,
        padding,
        ..Default::default()
    });
    let room = prop_oneof![Just(1 << 16), 0..400usize];
    (header, body, room)
}

/// What would change if a request reached it.
fn outside(dir: &TempDir) -> Vec<(u64, u32, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let status = |path: &std::path::Path| std::fs::metadata(path).unwrap();
    [status(dir.path()), status(&dir.path().join("secret"))]
        .map(|s| (s.nlink(), s.mode(), s.ctime(), s.ctime_nsec()))
        .into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_request_panics_or_leaves_the_directory(
        requests in proptest::collection::vec(any_request(), 1..30)
    ) {
        let (dir, server) = server();
        std::os::unix::fs::symlink("../secret", dir.path().join("shared/a")).unwrap();
        let before = outside(&dir);
        init(&server, 40, Features::from_bits(u64::MAX)).unwrap();
        // Not the whole host's disks for each case.
        let requests = requests.into_iter().filter(|r| r.0.opcode != Opcode::Syncfs as u32);
        for (header, body, room) in requests {
            let (result, reply) = call(&server, header, &body, room);
            if matches!(result, Ok(Work::Replied)) {
                prop_assert!(reply.len() <= room.max(16));
            }
        }
        server.reset();
        prop_assert_eq!(server.file_system().inode_count(), 1);
        prop_assert_eq!(server.file_system().handle_count(), 0);
        prop_assert_eq!(outside(&dir), before);
        prop_assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"secret");
    }
}

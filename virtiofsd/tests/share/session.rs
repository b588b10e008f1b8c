//! FUSE requests in bytes, as a kernel writes them (linux/fuse.h).

use lab::frontend::Ticket;
use lab::frontend::fs::{Caller, Fs, FuseReply};
use virtiofsd::fuse::Opcode;

/// Node of the root.
pub const ROOT: u64 = 1;
/// `struct fuse_entry_out`.
pub const ENTRY: usize = 128;
/// `struct fuse_open_out`.
pub const OPEN: usize = 16;

/// A driver's requests about files.
pub struct Session<'a>(pub &'a mut Fs);

impl Session<'_> {
    pub fn call(&mut self, opcode: Opcode, node: u64, body: &[&[u8]], room: usize) -> FuseReply {
        self.0
            .request(opcode as u32, Caller::root(node), body, room)
            .unwrap()
    }

    pub fn lookup(&mut self, name: &str) -> Result<u64, i32> {
        let reply = self.call(Opcode::Lookup, ROOT, &[name.as_bytes(), b"\0"], ENTRY);
        if reply.error == 0 {
            Ok(number(&reply.body, 0))
        } else {
            Err(reply.error)
        }
    }

    /// Creates a file; node and handle.
    pub fn create(&mut self, name: &str) -> (u64, u64) {
        let arguments = words(&[libc::O_RDWR.cast_unsigned(), 0o100_644, 0, 0]);
        let body: &[&[u8]] = &[&arguments, name.as_bytes(), b"\0"];
        let reply = self.call(Opcode::Create, ROOT, body, ENTRY + OPEN);
        assert_eq!(reply.error, 0, "create {name}");
        (number(&reply.body, 0), number(&reply.body, ENTRY))
    }

    pub fn open(&mut self, node: u64) -> u64 {
        let reply = self.call(Opcode::Open, node, &[&words(&[0, 0])], OPEN);
        assert_eq!(reply.error, 0);
        number(&reply.body, 0)
    }

    pub fn write(&mut self, file: (u64, u64), offset: u64, data: &[u8]) -> FuseReply {
        let size = u32::try_from(data.len()).unwrap();
        self.call(
            Opcode::Write,
            file.0,
            &[&transfer(file.1, offset, size), data],
            8,
        )
    }

    pub fn read(&mut self, file: (u64, u64), offset: u64, size: u32) -> FuseReply {
        let room = size as usize;
        self.call(
            Opcode::Read,
            file.0,
            &[&transfer(file.1, offset, size)],
            room,
        )
    }

    pub fn submit_read(&mut self, file: (u64, u64), offset: u64, size: u32) -> Ticket {
        let body = transfer(file.1, offset, size);
        let caller = Caller::root(file.0);
        self.0
            .submit(Opcode::Read as u32, caller, &[&body], &[size as usize])
            .unwrap()
    }

    pub fn forget(&mut self, node: u64, count: u64) {
        let body = count.to_le_bytes();
        self.0
            .notify(Opcode::Forget as u32, Caller::root(node), &body)
            .unwrap();
    }

    pub fn release(&mut self, opcode: Opcode, file: (u64, u64)) -> i32 {
        let body = [&file.1.to_le_bytes()[..], &[0; 16]].concat();
        self.call(opcode, file.0, &[&body], 0).error
    }
}

/// `struct fuse_read_in` and `struct fuse_write_in`: the same shape.
pub fn transfer(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    [
        &handle.to_le_bytes()[..],
        &offset.to_le_bytes(),
        &size.to_le_bytes(),
        &[0; 20],
    ]
    .concat()
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

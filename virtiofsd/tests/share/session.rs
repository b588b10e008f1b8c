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

    /// As [`call`](Self::call), for another user than root, of a group with the same number.
    pub fn call_as(
        &mut self,
        user: u32,
        opcode: Opcode,
        node: u64,
        body: &[&[u8]],
        room: usize,
    ) -> FuseReply {
        let caller = Caller {
            uid: user,
            gid: user,
            ..Caller::root(node)
        };
        self.0.request(opcode as u32, caller, body, room).unwrap()
    }

    /// Creates a file as another user than root; the errno, or the node and whom it belongs to.
    pub fn create_as(&mut self, user: u32, name: &str) -> Result<(u64, (u32, u32)), i32> {
        let arguments = words(&[libc::O_RDWR.cast_unsigned(), 0o100_644, 0, 0]);
        let body: &[&[u8]] = &[&arguments, name.as_bytes(), b"\0"];
        let reply = self.call_as(user, Opcode::Create, ROOT, body, ENTRY + OPEN);
        if reply.error != 0 {
            return Err(-reply.error);
        }
        // `struct fuse_entry_out`: 40 bytes, then `struct fuse_attr`, which has the owner at 68.
        let word = |at| lab::frontend::fs::u32_at(&reply.body, at).unwrap();
        Ok((number(&reply.body, 0), (word(40 + 68), word(40 + 72))))
    }

    /// Changes whom a file belongs to; the errno, or whom it belongs to.
    pub fn chown(&mut self, node: u64, owner: u32, group: u32) -> Result<(u32, u32), i32> {
        const UID_AND_GID: u32 = 1 << 1 | 1 << 2;
        let mut body = [0; 88];
        body[..4].copy_from_slice(&UID_AND_GID.to_le_bytes());
        body[76..80].copy_from_slice(&owner.to_le_bytes());
        body[80..84].copy_from_slice(&group.to_le_bytes());
        attributes(&self.call(Opcode::Setattr, node, &[&body], 104))
    }

    /// Whom a file belongs to.
    pub fn owner(&mut self, node: u64) -> Result<(u32, u32), i32> {
        attributes(&self.call(Opcode::Getattr, node, &[&[0; 16]], 104))
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

/// Owner and group in a `struct fuse_attr_out`: 16 bytes, then `struct fuse_attr`.
fn attributes(reply: &FuseReply) -> Result<(u32, u32), i32> {
    if reply.error != 0 {
        return Err(-reply.error);
    }
    let word = |at| lab::frontend::fs::u32_at(&reply.body, at).unwrap();
    Ok((word(16 + 68), word(16 + 72)))
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

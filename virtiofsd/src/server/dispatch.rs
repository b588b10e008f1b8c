//! From opcode to handler.

use std::io::Result;
use std::sync::atomic::Ordering;

use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use super::{Server, attr, dir, entry, errno, init, io, lock, sync, xattr};
use crate::file_system::GuestFileSystem;
use crate::fuse::Opcode;
use crate::fuse::abi::{
    AttrOut, EntryOut, InitOut, LkOut, LseekOut, OpenOut, StatfsOut, StatxOut, WriteOut,
};

type Handler<F> = fn(&Server<F>, &mut Request<'_>, &mut Reply<'_>) -> Result<Work>;

/// Carries out `request`, if the guest has said hello and has room for the reply: so no handler
/// does something that the guest then does not hear of.
pub(super) fn dispatch<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let known = request.opcode == Opcode::Init || server.initialised.load(Ordering::Acquire);
    if request.opcode.is_silent() {
        if known {
            handler(request.opcode)(server, request, reply)?;
        }
        return Ok(Work::Silent);
    }
    if !known {
        return Err(errno(libc::ENOTCONN));
    }
    if !reply.fits(reply_size(request.opcode)) {
        return Err(errno(libc::EINVAL));
    }
    handler(request.opcode)(server, request, reply)
}

fn handler<F: GuestFileSystem>(opcode: Opcode) -> Handler<F> {
    match opcode {
        Opcode::Init => init::init,
        Opcode::Destroy => init::destroy,

        Opcode::Lookup => entry::lookup,
        Opcode::Forget => entry::forget,
        Opcode::BatchForget => entry::batch_forget,
        Opcode::Symlink => entry::symlink,
        Opcode::Mknod => entry::mknod,
        Opcode::Mkdir => entry::mkdir,
        Opcode::Create => entry::create,
        Opcode::Tmpfile => entry::tmpfile,
        Opcode::Link => entry::link,
        Opcode::Unlink => entry::unlink,
        Opcode::Rmdir => entry::rmdir,
        Opcode::Rename => entry::rename,
        Opcode::Rename2 => entry::rename2,

        Opcode::Getattr => attr::getattr,
        Opcode::Setattr => attr::setattr,
        Opcode::Statx => attr::statx,
        Opcode::Statfs => attr::statfs,
        Opcode::Access => attr::access,
        Opcode::Readlink => attr::readlink,

        Opcode::Open => io::open,
        Opcode::Read => io::read,
        Opcode::Write => io::write,
        Opcode::Release => io::release,
        Opcode::Fallocate => io::fallocate,
        Opcode::Lseek => io::lseek,
        Opcode::CopyFileRange => io::copy_file_range,
        Opcode::CopyFileRange64 => io::copy_file_range_64,

        Opcode::Opendir => dir::opendir,
        Opcode::Readdir => dir::readdir,
        Opcode::Readdirplus => dir::readdirplus,
        Opcode::Releasedir => dir::releasedir,

        Opcode::Flush => sync::flush,
        Opcode::Fsync | Opcode::Fsyncdir => sync::fsync,
        Opcode::Syncfs => sync::syncfs,

        Opcode::Setxattr => xattr::setxattr,
        Opcode::Getxattr => xattr::getxattr,
        Opcode::Listxattr => xattr::listxattr,
        Opcode::Removexattr => xattr::removexattr,

        Opcode::Interrupt => lock::interrupt,
        // There is nothing to notify.
        Opcode::NotifyReply => |_, _, _| Ok(Work::Silent),
        Opcode::Getlk => lock::getlk,
        Opcode::Setlk => lock::setlk,
        Opcode::Setlkw => lock::setlkw,
        Opcode::Ioctl => |_, _, _| Err(errno(libc::ENOTTY)),
        Opcode::Bmap | Opcode::Poll | Opcode::SetupMapping | Opcode::RemoveMapping => {
            |_, _, _| Err(errno(libc::ENOSYS))
        }
    }
}

/// Size of the fixed part of a reply's body.
const fn reply_size(opcode: Opcode) -> usize {
    match opcode {
        Opcode::Init => size_of::<InitOut>(),
        Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => {
            size_of::<EntryOut>()
        }
        Opcode::Create | Opcode::Tmpfile => size_of::<EntryOut>() + size_of::<OpenOut>(),
        Opcode::Getattr | Opcode::Setattr => size_of::<AttrOut>(),
        Opcode::Statx => size_of::<StatxOut>(),
        Opcode::Statfs => size_of::<StatfsOut>(),
        Opcode::Open | Opcode::Opendir => size_of::<OpenOut>(),
        Opcode::Write | Opcode::CopyFileRange => size_of::<WriteOut>(),
        Opcode::CopyFileRange64 => size_of::<u64>(),
        Opcode::Lseek => size_of::<LseekOut>(),
        Opcode::Getlk => size_of::<LkOut>(),
        _ => 0,
    }
}

//! Extended attributes.
//!
//! An `O_PATH` descriptor has none to the f*xattr calls, and a symbolic link or a device node must
//! not be opened. So these go by a path: the descriptor's number, relative to /proc/self/fd, which
//! the thread has made its own current directory. The kernel follows that one magic link, to the
//! file itself, and nothing further.

use std::borrow::Cow;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use fuse_backend_rs::api::filesystem::{Context, GetxattrReply, ListxattrReply};
use rustix::fs::XattrFlags;

use super::{Passthrough, XattrMap, errno};
use crate::fuse::{Features, XATTR_SIZE_MAX};

/// ACLs have to be kept in step with the mode the guest sees; where they are not agreed on in `INIT`
/// there are none.
pub(super) const ACLS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];

impl Passthrough {
    fn xattrs_wanted(&self) -> io::Result<()> {
        if self.config.xattr {
            Ok(())
        } else {
            Err(errno(libc::ENOSYS))
        }
    }

    /// The host's name for an attribute.
    pub(super) fn host_xattr<'n>(&self, name: &'n CStr) -> io::Result<Cow<'n, CStr>> {
        self.xattrs_wanted()?;
        if ACLS.contains(&name) && !self.agreed(Features::POSIX_ACL) {
            return Err(errno(libc::EOPNOTSUPP));
        }
        match &self.config.xattr_map {
            Some(map) => map.to_host(name),
            None => Ok(name.into()),
        }
    }

    pub(super) fn set_xattr(
        &self,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        self.writable()?;
        let name = &*self.host_xattr(name)?;
        let node = self.inodes.get(inode)?;
        self.set_xattr_of(&node.fd()?, name, value, flags)
    }

    /// Sets an attribute of an open file, by its name on the host.
    pub(super) fn set_xattr_of(
        &self,
        fd: &impl AsFd,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        let path = self.descriptors.path(fd)?;
        let flags = XattrFlags::from_bits_retain(flags);
        Ok(rustix::fs::setxattr(path.as_c_str(), name, value, flags)?)
    }

    pub(super) fn get_xattr(
        &self,
        inode: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        let name = &*self.host_xattr(name)?;
        let node = self.inodes.get(inode)?;
        let fd = node.fd()?;
        let path = self.descriptors.path(&fd)?;
        if size == 0 {
            let size = rustix::fs::getxattr_query(path.as_c_str(), name)?;
            return Ok(GetxattrReply::Count(
                u32::try_from(size).unwrap_or(u32::MAX),
            ));
        }
        let mut value = vec![0; (size as usize).min(XATTR_SIZE_MAX)];
        let len = rustix::fs::getxattr(path.as_c_str(), name, &mut value[..])?;
        value.truncate(len);
        Ok(GetxattrReply::Value(value))
    }

    /// As the kernel does it, the superuser's attributes are listed for nobody else.
    pub(super) fn list_xattrs(
        &self,
        context: &Context,
        inode: u64,
        size: u32,
    ) -> io::Result<ListxattrReply> {
        self.xattrs_wanted()?;
        let node = self.inodes.get(inode)?;
        let fd = node.fd()?;
        let path = self.descriptors.path(&fd)?;
        if size == 0 {
            let size = rustix::fs::listxattr_query(path.as_c_str())?;
            return Ok(ListxattrReply::Count(
                u32::try_from(size).unwrap_or(u32::MAX),
            ));
        }
        // XATTR_LIST_MAX is the same 64 KiB.
        let mut names = vec![0; (size as usize).min(XATTR_SIZE_MAX)];
        let len = rustix::fs::listxattr(path.as_c_str(), &mut names[..])?;
        names.truncate(len);
        if let Some(map) = &self.config.xattr_map {
            names = renamed(map, &names);
        }
        if !self.agreed(Features::POSIX_ACL) {
            names = without(&names, is_acl);
        }
        if context.uid != 0 {
            names = without(&names, |name| name.starts_with(b"trusted."));
        }
        Ok(ListxattrReply::Names(names))
    }

    pub(super) fn remove_xattr(&self, inode: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        let name = &*self.host_xattr(name)?;
        let node = self.inodes.get(inode)?;
        let fd = node.fd()?;
        let path = self.descriptors.path(&fd)?;
        Ok(rustix::fs::removexattr(path.as_c_str(), name)?)
    }
}

/// A list of names as the guest is to see them.
fn renamed(map: &XattrMap, names: &[u8]) -> Vec<u8> {
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let shown = names.filter_map(|name| map.to_guest(name));
    shown.flat_map(|name| [name, b"\0"].concat()).collect()
}

/// Attributes that cannot be had must not be listed: whoever copies them all would fail.
fn without(names: &[u8], hidden: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let names = names.split_inclusive(|byte| *byte == 0);
    let shown = names.filter(|name| !hidden(name));
    shown.flatten().copied().collect()
}

fn is_acl(name: &[u8]) -> bool {
    ACLS.iter().any(|acl| acl.to_bytes_with_nul() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_are_not_listed() {
        let host = b"user.a\0system.posix_acl_access\0user.b\0system.posix_acl_default\0";
        assert_eq!(without(host, is_acl), b"user.a\0user.b\0");
        assert_eq!(without(b"", is_acl), b"");
    }
}

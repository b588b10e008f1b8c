//! Unix sockets that are listened on.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Listens, in place of a socket that somebody left behind.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let is_socket = |it: fs::Metadata| it.file_type().is_socket();
    if fs::symlink_metadata(path).is_ok_and(is_socket) && UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

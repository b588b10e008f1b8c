//! Whether a socket listens, without connecting to it.

use std::fs;
use std::path::Path;

/// Whether a unix socket of that file name is in the listening state (proc(5), `/proc/net/unix`),
/// seen from here or from the daemon's network namespace.
pub(super) fn is_listening(path: &Path, pid: u32) -> bool {
    /// `__SO_ACCEPTCON` in the column of flags.
    const ACCEPTS: &str = "00010000";
    let Some(file_name) = path.file_name() else {
        return false;
    };
    let tables = [
        "/proc/thread-self/net/unix".to_owned(),
        format!("/proc/{pid}/net/unix"),
    ];
    let listens = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let accepts = fields.nth(3) == Some(ACCEPTS);
        accepts
            && fields
                .nth(3)
                .is_some_and(|bound| Path::new(bound).file_name() == Some(file_name))
    };
    path.exists()
        && tables.iter().any(|table| {
            fs::read_to_string(table).is_ok_and(|sockets| sockets.lines().any(listens))
        })
}

//! Waits until daemons listen.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::event::{Event, Failure};
use super::session::collect_ends;

/// How long a daemon may take to listen: it may have to open a slow disk.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(1);

/// Flag of a listening socket in /proc/net/unix (`__SO_ACCEPTCON` in linux/net.h).
const LISTENS: u32 = 0x1_0000;

/// Returns when every socket is listened on. Connecting to find out would use up the one session
/// that some daemons serve.
pub(super) fn wait_until_served(
    sockets: &[PathBuf],
    events: &Receiver<Event>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match events.try_recv() {
            Ok(Event::PartEnded(end)) => return Err(collect_ends(end, events)),
            Ok(Event::Signal(signal)) if ends_a_run(signal) => {
                return Err(Failure::Interrupted(signal));
            }
            Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        // Bytes: anybody's socket may have a name that is no UTF-8.
        let table = fs::read("/proc/net/unix").unwrap_or_default();
        let Some(missing) = sockets.iter().find(|socket| !is_listening(&table, socket)) else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(Failure::NotServed(missing.clone()));
        }
        thread::sleep(PAUSE);
    }
}

/// Every watched signal but the news of a new window size.
pub(super) fn ends_a_run(signal: i32) -> bool {
    signal != signal_hook::consts::SIGWINCH
}

/// Whether a line of /proc/net/unix (unix(7)) shows a listener at `socket`.
fn is_listening(table: &[u8], socket: &Path) -> bool {
    let path = socket.as_os_str().as_bytes();
    table.split(|byte| *byte == b'\n').any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path; only the path can hold more blanks.
        let Some(fields) = line.strip_suffix(path) else {
            return false;
        };
        let fields = String::from_utf8_lossy(fields);
        let mut words = fields.split_whitespace();
        let flags = words
            .nth(3)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        // Behind the flags come three more, and nothing that would begin a longer path.
        words.count() == 3 && flags.is_some_and(|flags| flags & LISTENS != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn only_listeners_count() {
        let table = b"\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/a.sock
0000000000000000: 00000003 00000000 00000000 0001 03 12 /run/b.sock
0000000000000000: 00000002 00000000 00010000 0001 01 13 /x\xff/with blank/run/c.sock
";
        assert!(is_listening(table, "/run/a.sock".as_ref()));
        assert!(!is_listening(table, "/run/b.sock".as_ref()));
        assert!(!is_listening(table, "/run/c.sock".as_ref()));
        assert!(!is_listening(table, "blank/run/c.sock".as_ref()));
        let odd = OsStr::from_bytes(b"/x\xff/with blank/run/c.sock");
        assert!(is_listening(table, odd.as_ref()));
    }
}

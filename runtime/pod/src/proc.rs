//! What /proc tells about processes and sockets.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Flag of a listening socket in /proc/net/unix (`__SO_ACCEPTCON` in linux/net.h).
const LISTENS: u32 = 0x1_0000;

/// Which of the machine's boots this is, as a UUID (`boot_id` in random(4)).
#[must_use]
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// When a process started, in clock ticks since the machine did (`starttime` in proc_pid_stat(5)).
/// With its id it names a process of this boot, while the id alone is used again.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold anything; the third is behind its last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Whether somebody listens at `socket`. Connecting to find out would use up the one session that
/// some daemons serve.
pub(crate) fn is_served(socket: &Path) -> bool {
    // Bytes: anybody's socket may have a name that is no UTF-8.
    is_listening(&fs::read("/proc/net/unix").unwrap_or_default(), socket)
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
    use super::*;

    #[test]
    fn a_process_has_a_start_and_a_dead_one_has_none() {
        let own = start_time(std::process::id()).unwrap();
        assert!(own >= start_time(1).unwrap());
        // Above the largest id a Linux process can have (PID_MAX_LIMIT, 4194304).
        assert_eq!(start_time(99_999_999), None);
    }

    #[test]
    fn only_listeners_count() {
        let table = b"\
0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/a.sock
0000000000000000: 00000003 00000000 00000000 0001 03 12 /run/b.sock
";
        assert!(is_listening(table, "/run/a.sock".as_ref()));
        assert!(!is_listening(table, "/run/b.sock".as_ref()));
        assert!(!is_listening(table, "/a.sock".as_ref()));
    }
}

//! Standard streams of a pod's processes: each is a vsock connection of its own.
//!
//! The host connects to [`port::STREAM`](crate::port::STREAM) and sends one line, `stream NAME`. The agent
//! answers [`ACCEPTED`], or one line that says what is wrong and closes. From then on the connection carries
//! the stream's bytes and nothing else, as soon as a `CreateContainer` or `Exec` names it:
//!
//! - standard input flows from host to guest; the host's half close is end of file;
//! - standard output and error flow from guest to host; the guest's half close follows the last byte;
//! - with a terminal, input and output are the two directions of its other side.
//!
//! A connection that nothing names within [`UNCLAIMED_FOR`] is closed, and so is one beyond
//! [`MOST_UNCLAIMED`] of them.

use std::time::Duration;

/// Longest name, in bytes.
pub const LONGEST_NAME: usize = 128;

/// What a line begins with.
const WORD: &str = "stream ";

/// Longest announcement, its line end included, in bytes.
pub const LONGEST_LINE: usize = WORD.len() + LONGEST_NAME + 1;

/// The answer to an announcement that holds. Anything else is the reason why it does not.
pub const ACCEPTED: &str = "ok\n";

/// How many connections may wait to be named.
pub const MOST_UNCLAIMED: usize = 1024;

/// How long a connection may wait to be named.
pub const UNCLAIMED_FOR: Duration = Duration::from_secs(60);

/// The line that announces a stream; `None` where [`is_name`] refuses the name.
#[must_use]
pub fn announcement(name: &str) -> Option<String> {
    is_name(name).then(|| format!("{WORD}{name}\n"))
}

/// The name in an announcement without its line end.
#[must_use]
pub fn parse(line: &[u8]) -> Option<&str> {
    let name = str::from_utf8(line).ok()?.strip_prefix(WORD)?;
    is_name(name).then_some(name)
}

/// Whether a stream can be called this: 1 to 128 of `A-Z a-z 0-9 . _ / -`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_checked() {
        let longest = "n".repeat(LONGEST_NAME);
        for name in ["a", "pod-1/exec_2.stdin", longest.as_str()] {
            let line = announcement(name).unwrap();
            assert!(line.len() <= LONGEST_LINE);
            assert_eq!(parse(line.trim_end().as_bytes()), Some(name));
        }
        let too_long = "n".repeat(LONGEST_NAME + 1);
        for name in ["", "a b", "a\n", "ž", too_long.as_str()] {
            assert_eq!(announcement(name), None, "{name:?}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            &b"stream"[..],
            b"stream ",
            b"streamx",
            b"STREAM a",
            b"stream \xff",
            b"",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_a_name(line in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(name) = parse(&line) {
                prop_assert!(is_name(name));
            }
        }
    }
}

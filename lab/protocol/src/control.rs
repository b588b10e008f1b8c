//! The control port: one JSON object a line.

use std::io::{self, BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest line either side reads, in bytes. The peer is not trusted to end its lines.
const LONGEST_LINE: u64 = 64 * 1024;

/// What the host asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Send this signal to the command.
    Signal {
        /// The signal's number on Linux x86-64.
        number: i32,
    },
    /// Standard input ends after this many bytes in all.
    StdinEnd {
        /// Bytes since the start.
        bytes: u64,
    },
    /// Everything arrived: switch the machine off.
    PowerOff,
}

/// What the machine tells the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// The command runs.
    Started {
        /// Milliseconds between the kernel's start and the command's.
        uptime_ms: u64,
    },
    /// The command ended and every file system is written back.
    Exited {
        /// Exit code, or 128 + the signal that ended it.
        code: u8,
        /// All bytes it wrote to standard output.
        stdout: u64,
        /// All bytes it wrote to standard error.
        stderr: u64,
    },
    /// The machine could not get as far as running the command.
    Failed {
        /// Which step failed and why.
        message: String,
        /// The exit code that says so: 127 command not found, 126 cannot be run, 125 anything else.
        code: u8,
    },
}

/// Writes one message and its line end in a single write.
///
/// # Errors
/// What the writer says.
pub fn write_line(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    writer.flush()
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// What the reader says, or `InvalidData` for a line that is too long or is no such message.
pub fn read_line<T: DeserializeOwned>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if reader.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_order() {
        let sent = [
            Order::StdinEnd { bytes: 7 },
            Order::Signal { number: 15 },
            Order::PowerOff,
        ];
        let mut wire = Vec::new();
        for order in &sent {
            write_line(&mut wire, order).unwrap();
        }
        let mut reader = &wire[..];
        for order in sent {
            assert_eq!(read_line(&mut reader).unwrap(), Some(order));
        }
        assert_eq!(read_line::<Order>(&mut reader).unwrap(), None);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = vec![b'x'; 200_000];
        let error = read_line::<Order>(&mut &endless[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

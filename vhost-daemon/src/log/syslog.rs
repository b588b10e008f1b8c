//! Log lines for syslog: datagrams of the form `<priority>program[pid]: line` (RFC 3164, 4.1.1; the
//! time is syslog's to add).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const SOCKET: &str = "/dev/log";

/// `LOG_USER`.
const FACILITY: u8 = 1 << 3;

/// A connection to syslog.
pub(super) struct Syslog {
    socket: UnixDatagram,
    program: &'static str,
    process: u32,
}

impl Syslog {
    /// # Errors
    /// When nobody listens.
    pub(super) fn connect(program: &'static str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        // A syslog that does not read must not hold up a queue: lines are lost then.
        socket.set_nonblocking(true)?;
        let process = std::process::id();
        Ok(Self {
            socket,
            program,
            process,
        })
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            syslog: self,
            severity: severity(Level::INFO),
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            syslog: self,
            severity: severity(*metadata.level()),
        }
    }
}

/// RFC 3164, table 2.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// One event.
pub(super) struct Line<'a> {
    syslog: &'a Syslog,
    severity: u8,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Syslog {
            socket,
            program,
            process,
        } = self.syslog;
        let priority = FACILITY | self.severity;
        let mut message = format!("<{priority}>{program}[{process}]: ").into_bytes();
        message.extend_from_slice(line.trim_ascii_end());
        // Nowhere to complain to.
        let _ = socket.send(&message);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

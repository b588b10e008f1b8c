//! One direction of one forwarded connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;

/// Bytes that may wait in one direction. A peer that does not read stops the other from being
/// read, never more than this is held.
const CAPACITY: usize = 64 * 1024;

/// Reads and writes before other connections get their turn.
const MOST_MOVES: usize = 32;

/// Moves bytes from one non-blocking stream to another, and the end of them too.
#[derive(Debug)]
pub(super) struct Pump {
    buffer: Box<[u8]>,
    waiting: Range<usize>,
    source_ended: bool,
    finished: bool,
}

impl Pump {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; CAPACITY].into(),
            waiting: 0..0,
            source_ended: false,
            finished: false,
        }
    }

    /// Whether the next thing to wait for is the source.
    pub(super) fn wants_source(&self) -> bool {
        !self.finished && self.waiting.is_empty()
    }

    /// Whether the next thing to wait for is room at the sink.
    pub(super) fn wants_sink(&self) -> bool {
        !self.finished && !self.waiting.is_empty()
    }

    /// Whether the end has been passed on.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Moves what can be moved without waiting, and no more than a fair share: the others of the
    /// same thread wait meanwhile.
    pub(super) fn advance(
        &mut self,
        mut source: &TcpStream,
        mut sink: &TcpStream,
    ) -> io::Result<()> {
        for _ in 0..MOST_MOVES {
            if self.finished {
                break;
            }
            if self.waiting.is_empty() {
                if self.source_ended {
                    self.finished = true;
                    return end_of_stream(sink);
                }
                let Some(length) = unless_blocked(source.read(&mut self.buffer))? else {
                    return Ok(());
                };
                self.source_ended = length == 0;
                self.waiting = 0..length;
            } else {
                let Some(length) = unless_blocked(sink.write(&self.buffer[self.waiting.clone()]))?
                else {
                    return Ok(());
                };
                self.waiting.start += length;
            }
        }
        // What is left is still ready: the next look at all connections finds it.
        Ok(())
    }
}

/// Passes on that no more bytes come, while the other direction goes on.
fn end_of_stream(sink: &TcpStream) -> io::Result<()> {
    match sink.shutdown(Shutdown::Write) {
        // The peer closed both directions already.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

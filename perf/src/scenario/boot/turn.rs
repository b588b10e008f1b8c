//! One turn: a VMM starts a guest, which comes to its mark.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::contestant::{Contestant, Guest};
use super::devices::Devices;
use super::images::MARK;
use super::{Error, Sample};
use crate::interrupt::Interrupt;
use crate::measure::private_kib;
use crate::sys::cpu_clock::process_nanoseconds;

const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Until a VMM whose guest sleeps has come to rest.
const SETTLE: Duration = Duration::from_millis(300);
/// Of what a VMM said, this much is told.
const SAID: usize = 400;

/// The guests of every turn.
#[derive(Debug)]
pub(super) struct Guests {
    /// Linux, whose first process writes the mark.
    pub(super) linux: Guest,
    /// A kernel that writes it at once.
    pub(super) nothing: Guest,
}

/// Both guests, one after the other.
pub(super) fn take(
    contestant: &Contestant,
    guests: &Guests,
    devices: Option<&Devices>,
    interrupt: &Interrupt,
) -> Result<Sample, Error> {
    let mut vmm = Running::start(contestant.command(&guests.nothing, devices))?;
    let first = vmm.wait_mark(interrupt)?;
    drop(vmm);
    let mut vmm = Running::start(contestant.command(&guests.linux, devices))?;
    let linux = vmm.wait_mark(interrupt)?;
    interrupt.sleep(SETTLE)?;
    // The guest's memory is one mapping, or two.
    let limit = u64::from(guests.linux.memory_mib) * 1024 / 4;
    let private_kib = private_kib(vmm.child.id(), limit).map_err(Error::Measure)?;
    Ok(Sample {
        boot_ms: linux.after_ms,
        boot_cpu_ms: linux.cpu_ms,
        first_ms: first.after_ms,
        first_cpu_ms: first.cpu_ms,
        private_kib,
    })
}

/// When the mark came.
struct Mark {
    after_ms: f64,
    cpu_ms: f64,
}

enum Said {
    Mark(Instant),
    Text(Vec<u8>),
}

/// A VMM, which is killed when this is dropped.
struct Running {
    child: Child,
    started: Instant,
    said: Receiver<Said>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, Error> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let program = command.get_program().display().to_string();
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|source| Error::Start { program, source })?;
        let (sender, said) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|it| Box::new(it) as _),
            child.stderr.take().map(|it| Box::new(it) as _),
        ];
        for mut stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let now = Instant::now();
                    if bytes[..count].contains(&MARK) {
                        let _ = sender.send(Said::Mark(now));
                    }
                    let _ = sender.send(Said::Text(bytes[..count].to_vec()));
                }
            });
        }
        Ok(Self {
            child,
            started,
            said,
        })
    }

    fn wait_mark(&mut self, interrupt: &Interrupt) -> Result<Mark, Error> {
        let mut text = Vec::new();
        let words = |text: &[u8]| {
            let tail = &text[text.len().saturating_sub(SAID)..];
            crate::report::one_line(&String::from_utf8_lossy(tail))
        };
        loop {
            interrupt.check()?;
            match self.said.recv_timeout(POLL) {
                Ok(Said::Mark(at)) => {
                    let cpu = process_nanoseconds(self.child.id()).map_err(Error::Measure)?;
                    return Ok(Mark {
                        after_ms: at.duration_since(self.started).as_secs_f64() * 1e3,
                        cpu_ms: Duration::from_nanos(cpu).as_secs_f64() * 1e3,
                    });
                }
                Ok(Said::Text(more)) => text.extend(more),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Ended(words(&text))),
                Err(RecvTimeoutError::Timeout) if self.started.elapsed() > LIMIT => {
                    return Err(Error::TooSlow {
                        limit: LIMIT,
                        said: words(&text),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

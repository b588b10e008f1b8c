//! Bytes between the streams that an engine gave us and the FIFOs of the shim.
//!
//! One thread for each stream, which waits for either side: so a reader that is slow stops the process in the guest,
//! and nothing is dropped on the way.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringside_pod::chain;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::stdio;

use super::super::OciError;
use super::super::task::{Stdio, Task};
use super::console::Console;
use super::serve::Event;

/// Bytes that are moved at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// The threads of one process's streams.
pub(super) struct Relays {
    outputs: Vec<Arc<Progress>>,
    ended: AtomicUsize,
    made: Arc<Gate>,
}

/// Opens once.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

/// Since when an output has brought nothing; `None` while it is written on.
#[derive(Default)]
struct Progress(Mutex<Option<Instant>>);

/// Makes FIFOs for a process's streams.
///
/// # Errors
/// When they cannot be made.
pub(super) fn make(folder: &Path, terminal: bool) -> Result<Stdio, OciError> {
    let fifo = |name: &str| -> Result<String, OciError> {
        let path = folder.join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| OciError::file("make", &path)(error.into()))?;
        Ok(path.display().to_string())
    };
    Ok(Stdio {
        stdin: fifo("stdin")?,
        stdout: fifo("stdout")?,
        stderr: if terminal {
            String::new()
        } else {
            fifo("stderr")?
        },
        terminal,
    })
}

impl Relays {
    /// Starts to move bytes, once the shim opens its ends.
    ///
    /// # Errors
    /// When a stream of ours cannot be used.
    pub(super) fn start(
        fifos: &Stdio,
        console: Option<&Console>,
        task: &Arc<Task>,
        exec: &str,
        events: &Sender<Event>,
    ) -> Result<Self, OciError> {
        let failed = || OciError::system("duplicate a standard stream");
        let own = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
        let input = console.map_or_else(|| own(stdio::stdin()), Console::input);
        relay_input(input.map_err(failed())?, fifos.stdin.clone(), task, exec);
        let output = console.map_or_else(|| own(stdio::stdout()), Console::output);
        let mut outputs = vec![relay_output(
            fifos.stdout.clone(),
            output.map_err(failed())?,
            events,
        )];
        if !fifos.stderr.is_empty() {
            let errors = own(stdio::stderr()).map_err(failed())?;
            outputs.push(relay_output(fifos.stderr.clone(), errors, events));
        }
        Ok(Self {
            outputs,
            ended: AtomicUsize::new(0),
            made: Arc::default(),
        })
    }

    /// Runs this in a thread, once the process was made.
    pub(super) fn when_made(&self, then: impl FnOnce() + Send + 'static) {
        let made = Arc::clone(&self.made);
        thread::spawn(move || {
            made.wait();
            then();
        });
    }

    /// The process was made.
    pub(super) fn made(&self) {
        self.made.open();
    }

    pub(super) fn one_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all outputs have ended, or those left have brought nothing for this long.
    pub(super) fn are_done(&self, silence: Duration) -> bool {
        self.ended.load(Ordering::Relaxed) >= self.outputs.len()
            || self.outputs.iter().all(|it| it.is_silent_for(silence))
    }
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        // A poisoned lock holds a bool all the same.
        let _open = self
            .opened
            .wait_while(is_open, |is_open| !*is_open)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Progress {
    fn waits(&self) {
        self.set(Some(Instant::now()));
    }

    fn writes(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_silent_for(&self, silence: Duration) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= silence)
    }
}

/// The shim opens its end when the process has been started: nothing is taken from the engine before.
fn relay_input(mut from: File, fifo: String, task: &Arc<Task>, exec: &str) {
    let (task, exec) = (Arc::clone(task), exec.to_owned());
    thread::spawn(move || {
        let copied = OpenOptions::new()
            .write(true)
            .open(&fifo)
            .and_then(|mut to| copy(&mut from, &mut to, None));
        match copied {
            // The process reads no more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
            // A terminal that was hung up has ended, too.
            Err(error) => tracing::debug!(%error, "standard input"),
            Ok(()) => {}
        }
        if let Err(error) = task.close_input(&exec) {
            tracing::debug!("{}", chain(&error));
        }
    });
}

fn relay_output(fifo: String, mut to: File, events: &Sender<Event>) -> Arc<Progress> {
    let progress = Arc::new(Progress::default());
    let (ours, events) = (Arc::clone(&progress), events.clone());
    thread::spawn(move || {
        ours.waits();
        match OpenOptions::new().read(true).open(&fifo) {
            Ok(mut from) => {
                if let Err(error) = copy(&mut from, &mut to, Some(&ours)) {
                    tracing::debug!(%error, "standard output");
                    let _ = events.send(Event::OutputGone);
                    // The process must not stand still until it has heard of it.
                    let _ = copy(&mut from, &mut io::sink(), Some(&ours));
                }
            }
            Err(error) => tracing::error!(%error, fifo, "output is lost"),
        }
        drop(to);
        // Nobody listens any more.
        let _ = events.send(Event::OutputEnd);
    });
    progress
}

/// A writer that can be waited for.
trait Sink: Write {
    fn wait(&self) -> io::Result<()>;
}

impl Sink for File {
    fn wait(&self) -> io::Result<()> {
        wait_for(self.as_fd(), PollFlags::OUT)
    }
}

impl Sink for io::Sink {
    fn wait(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Moves everything. Either descriptor may be non-blocking: an engine's pipes can be.
fn copy(from: &mut File, to: &mut impl Sink, progress: Option<&Progress>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        if let Some(progress) = progress {
            progress.waits();
        }
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) => {
                retry(error, || wait_for(from.as_fd(), PollFlags::IN))?;
                continue;
            }
        };
        if let Some(progress) = progress {
            progress.writes();
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) => retry(error, || to.wait())?,
            }
        }
    }
}

fn retry(error: io::Error, wait: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => wait(),
        _ => Err(error),
    }
}

fn wait_for(descriptor: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    let mut descriptors = [PollFd::from_borrowed_fd(descriptor, flags)];
    match poll(&mut descriptors, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
    }

    #[test]
    fn nothing_is_lost_through_pipes_that_do_not_block() {
        let (mut first, mut into) = pipe();
        let (mut out, mut second) = pipe();
        for end in [&first, &second] {
            rustix::io::ioctl_fionbio(end, true).unwrap();
        }
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || into.write_all(&sent));
        let mover = thread::spawn(move || {
            let progress = Progress::default();
            copy(&mut first, &mut second, Some(&progress))
        });
        // Both sides have to wait: for the reader here, for the writer at the end.
        thread::sleep(Duration::from_millis(20));
        let mut read = Vec::new();
        out.read_to_end(&mut read).unwrap();
        writer.join().unwrap().unwrap();
        mover.join().unwrap().unwrap();
        assert!(read == expected);
    }

    #[test]
    fn silence_is_only_counted_while_nothing_is_written() {
        let progress = Progress::default();
        assert!(!progress.is_silent_for(Duration::ZERO));
        progress.waits();
        assert!(progress.is_silent_for(Duration::ZERO));
        assert!(!progress.is_silent_for(Duration::from_secs(3600)));
        progress.writes();
        assert!(!progress.is_silent_for(Duration::ZERO));
    }
}

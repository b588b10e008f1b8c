//! Where the serial port's bytes go to and come from: this terminal, a file, a socket, nowhere.
//!
//! A console never makes a processor wait: output waits in a buffer of bounded size, and what does not
//! fit because nobody reads is lost.

mod buffer;
mod keys;
mod socket;
mod terminal;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, sleep};
use std::time::Duration;

use thiserror::Error;

use crate::devices::SerialPort;
pub use buffer::{Buffer, Output};
use keys::Keys;
pub use terminal::RawTerminal;
use vhost_daemon::listen::{self, ListenError};

/// Where the serial port ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleConfig {
    /// Standard input and output.
    Terminal,
    /// A file that is written; nothing is typed.
    File(PathBuf),
    /// A unix socket for one client after another.
    Socket(PathBuf),
    /// Nowhere.
    Null,
}

impl ConsoleConfig {
    /// Whether the user's terminal is the guest's.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        *self == Self::Terminal
    }
}

/// Why there is no console.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// The file cannot be written.
    #[error("--serial: cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket cannot be listened on.
    #[error("--serial: cannot listen on its socket")]
    Socket(#[from] ListenError),
    /// No thread.
    #[error("no thread for the console")]
    Thread(#[source] io::Error),
}

/// Somebody at the terminal typed the way out.
pub type Quit = Box<dyn Fn() + Send>;

/// The console outlives the machine's resets; the port that it serves is told to it anew.
#[derive(Debug)]
pub struct Console {
    buffer: Arc<Buffer>,
    port: Arc<AttachedPort>,
}

/// The serial port that gets what is typed.
#[derive(Debug, Default)]
struct AttachedPort(Mutex<Weak<SerialPort>>);

/// How long a reader waits for room in the port.
const FULL_PORT: Duration = Duration::from_millis(2);

impl Console {
    /// Opens it and starts its threads. `quit` is called when somebody types Ctrl-A x.
    ///
    /// # Errors
    /// When the file or socket cannot be made.
    pub fn open(config: &ConsoleConfig, quit: Quit) -> Result<Self, ConsoleError> {
        let console = Self {
            buffer: Buffer::new(),
            port: Arc::default(),
        };
        match config {
            ConsoleConfig::Terminal => {
                console.write_to(io::stdout())?;
                console.read_from(io::stdin(), quit)?;
            }
            ConsoleConfig::File(path) => {
                let file = File::create(path).map_err(|source| ConsoleError::File {
                    path: path.clone(),
                    source,
                })?;
                console.write_to(file)?;
            }
            ConsoleConfig::Socket(path) => {
                let listener = listen::bind(path)?;
                console.serve(listener)?;
            }
            ConsoleConfig::Null => console.write_to(io::sink())?,
        }
        Ok(console)
    }

    /// Where a serial port writes.
    #[must_use]
    pub fn output(&self) -> Output {
        self.buffer.output()
    }

    /// From now on this port gets what is typed.
    pub fn attach(&self, port: &Arc<SerialPort>) {
        *self.port.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(port);
    }

    /// Waits until what the guest said is out, for at most `limit`.
    pub fn flush(&self, limit: Duration) {
        self.buffer.wait_empty(limit);
    }

    fn write_to(&self, mut sink: impl Write + Send + 'static) -> Result<(), ConsoleError> {
        let buffer = self.buffer.clone();
        start("console-out", move || {
            while buffer.pass_on(|bytes| sink.write_all(bytes).and_then(|()| sink.flush())) {}
        })
    }

    fn read_from(
        &self,
        source: impl Read + Send + 'static,
        quit: Quit,
    ) -> Result<(), ConsoleError> {
        let port = self.port.clone();
        start("console-in", move || port.feed(source, Some(&quit)))
    }

    fn serve(&self, listener: UnixListener) -> Result<(), ConsoleError> {
        let clients = Arc::new(socket::Client::default());
        let (buffer, own) = (self.buffer.clone(), clients.clone());
        start("console-out", move || {
            while buffer.pass_on(|bytes| {
                own.send(bytes);
                Ok(())
            }) {}
        })?;
        let port = self.port.clone();
        start("console-in", move || {
            for stream in listener.incoming().flatten() {
                clients.connected(&stream);
                port.feed(stream, None);
                clients.gone();
            }
        })
    }
}

impl AttachedPort {
    /// Passes on what is typed until there is no more.
    fn feed(&self, mut source: impl Read, quit: Option<&Quit>) {
        let mut keys = Keys::default();
        let mut bytes = [0; 256];
        loop {
            let typed = match source.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => &bytes[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let Some(quit) = quit else {
                self.type_in(typed);
                continue;
            };
            let (typed, wants_out) = keys.pass(typed);
            self.type_in(&typed);
            if wants_out {
                quit();
            }
        }
    }

    fn type_in(&self, mut typed: &[u8]) {
        while !typed.is_empty() {
            let port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(port) = port.upgrade() else { return };
            let taken = port.receive(typed);
            typed = &typed[taken..];
            if taken == 0 {
                drop(port);
                sleep(FULL_PORT);
            }
        }
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), ConsoleError> {
    Builder::new()
        .name(name.into())
        .spawn(run)
        .map(drop)
        .map_err(ConsoleError::Thread)
}

#[cfg(test)]
mod tests;

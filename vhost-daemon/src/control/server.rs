//! The control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Answer, Controlled, answer};
use crate::listen::{self, ListenError};
use crate::sandbox::seccomp::{Role, ThreadFilters};

/// No command is longer.
const MAX_LINE: u64 = 65536;

/// A client that says nothing for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most clients at a time; further ones wait.
const MAX_CLIENTS: usize = 8;

/// The control socket (mode 0600). Its file goes when the value is dropped.
pub struct ControlServer {
    listener: Arc<UnixListener>,
    path: PathBuf,
}

impl ControlServer {
    /// Makes the socket. Clients that come now wait for [`ControlServer::start`].
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        Ok(Self {
            listener: Arc::new(listen::bind(path)?),
            path: path.to_owned(),
        })
    }

    /// Starts serving commands, each client from a thread of its own: one that waits for a device to
    /// drain holds up nobody else.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start<C: Controlled>(
        &self,
        controlled: Arc<C>,
        filters: &Arc<ThreadFilters>,
    ) -> io::Result<()> {
        let (listener, filters) = (self.listener.clone(), filters.clone());
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || serve(&listener, &controlled, &filters))
            .map(drop)
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve<C: Controlled>(
    listener: &UnixListener,
    controlled: &Arc<C>,
    filters: &Arc<ThreadFilters>,
) {
    enter_role(filters);
    // A client's thread holds one clone.
    let clients = Arc::new(());
    loop {
        if Arc::strong_count(&clients) > MAX_CLIENTS {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        let client = clients.clone();
        let (controlled, filters) = (controlled.clone(), filters.clone());
        let served = listener.accept().and_then(|(stream, _)| {
            thread::Builder::new()
                .name("control client".to_owned())
                .spawn(move || {
                    enter_role(&filters);
                    if let Err(error) = converse(&stream, &controlled) {
                        tracing::debug!(%error, "a control client went away");
                    }
                    drop(client);
                })
        });
        if let Err(error) = served {
            tracing::debug!(%error, "a control client was not served");
            // Out of descriptors, for one: do not spin on it.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The list is the main thread's, which started this one: only reports name it.
fn enter_role(filters: &ThreadFilters) {
    let _ = filters.enter(Role::Control);
}

fn converse<C: Controlled>(stream: &UnixStream, controlled: &Arc<C>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        let (reply, follow) = match String::from_utf8(line) {
            Ok(line) if line.ends_with('\n') || (line.len() as u64) < MAX_LINE => {
                answer(controlled, &line)
            }
            Ok(_) => {
                let why = format!("a command of more than {MAX_LINE} bytes");
                return say::<C>(stream, &Answer::Error(why));
            }
            Err(_) => (Answer::Error("not UTF-8".to_owned()), None),
        };
        say::<C>(stream, &reply)?;
        if let Some(follow) = follow {
            return follow(stream);
        }
    }
}

fn say<C: Controlled>(mut stream: &UnixStream, reply: &Answer<C::Report>) -> io::Result<()> {
    let mut text = serde_json::to_string(reply)?;
    text.push('\n');
    stream.write_all(text.as_bytes())
}

//! Bytes between a container engine's FIFOs and processes in the guest.
//!
//! Each standard stream is a vsock connection of its own. A process that ends closes its side; what
//! it wrote before is in the connection, and all of it is copied before the FIFO is closed.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringside_protocol::{port, stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

/// Bytes that are moved at once.
const CHUNK: usize = 64 << 10;

/// How long the agent may take to accept a stream. A translated guest on a busy host is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest line of an answer, in bytes. The other side is not trusted to end its lines.
const LONGEST_ANSWER: usize = 512;

/// How often an output FIFO is looked at that nobody reads yet.
const UNREAD: Duration = Duration::from_millis(20);

/// Connects to a port of the guest, by the convention of hybrid vsock: `CONNECT PORT` there,
/// `OK NUMBER` back.
///
/// # Errors
/// When nobody listens, or the answer is another one.
pub async fn connect(vsock: &Path, port: u32) -> io::Result<UnixStream> {
    let mut connection = UnixStream::connect(vsock).await?;
    let order = format!("CONNECT {port}\n");
    connection.write_all(order.as_bytes()).await?;
    let answer = read_line(&mut connection).await?;
    if answer.starts_with(b"OK ") {
        return Ok(connection);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, answer))
}

/// Opens a stream that a process may then be given by this name.
///
/// # Errors
/// When the agent cannot be reached or does not take it within 30 seconds.
pub async fn open(vsock: &Path, name: &str) -> io::Result<UnixStream> {
    open_within(vsock, name, PATIENCE).await
}

async fn open_within(vsock: &Path, name: &str, patience: Duration) -> io::Result<UnixStream> {
    let opened = timeout(patience, announce(vsock, name)).await;
    opened.map_err(io::Error::from).flatten()
}

async fn announce(vsock: &Path, name: &str) -> io::Result<UnixStream> {
    let order = stream::announcement(name).ok_or(io::ErrorKind::InvalidInput)?;
    let mut connection = connect(vsock, port::STREAM).await?;
    connection.write_all(order.as_bytes()).await?;
    let mut answer = read_line(&mut connection).await?;
    answer.push(b'\n');
    if answer == stream::ACCEPTED.as_bytes() {
        return Ok(connection);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, answer))
}

/// One line without its end. Byte by byte: what follows it is not ours to take.
async fn read_line(connection: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        match connection.read_u8().await? {
            b'\n' => return Ok(line),
            _ if line.len() == LONGEST_ANSWER => return Err(io::ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}

/// Holds an input FIFO's writing side: its reader sees the end only when this is dropped and no
/// engine has it open. So an engine that is started again goes on where it was.
#[derive(Debug)]
pub struct InputGuard(#[expect(dead_code, reason = "it is held open")] pipe::Sender);

/// Opens an input FIFO and the guard of it. Neither waits for a writer.
///
/// # Errors
/// When it is no FIFO or cannot be opened.
pub fn open_input(path: &Path) -> io::Result<(pipe::Receiver, InputGuard)> {
    let receiver = pipe::OpenOptions::new().open_receiver(path)?;
    let guard = pipe::OpenOptions::new().open_sender(path)?;
    Ok((receiver, InputGuard(guard)))
}

/// Copies to a process until the FIFO ends, then tells it so by closing this direction.
///
/// # Errors
/// When either side fails; a process that no longer reads is no failure.
pub async fn copy_input(
    mut from: pipe::Receiver,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        match to.write_all(&buffer[..length]).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
}

/// Where a process's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To whoever reads this FIFO.
    Fifo(PathBuf),
    /// To the end of this file.
    File(PathBuf),
}

impl Output {
    /// What a container engine calls it: a path of a FIFO, or `file://PATH`. Empty: nowhere.
    ///
    /// # Errors
    /// With the text, when it is something else.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text.split_once("://") {
            None if text.is_empty() => Ok(None),
            None | Some(("fifo", _)) => {
                let path = text.trim_start_matches("fifo://");
                Ok(Some(Self::Fifo(path.into())))
            }
            Some(("file", path)) => Ok(Some(Self::File(path.into()))),
            Some(_) => Err(text.to_owned()),
        }
    }

    /// Copies from a process until it closed its side and everything is written.
    ///
    /// # Errors
    /// When the output cannot be opened, or either side fails.
    pub async fn copy(&self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        match self {
            Self::Fifo(path) => {
                let (to, _guard) = open_output(path).await?;
                copy_all(from, to).await
            }
            Self::File(path) => {
                let file = tokio::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .await?;
                copy_all(from, file).await
            }
        }
    }
}

/// Opens an output FIFO once somebody reads it: written before, it would be lost if we closed
/// before he came. The second descriptor reads and never does: with it, a reader that went away
/// stops us (and through us the process) instead of failing us, and the next one goes on.
async fn open_output(path: &Path) -> io::Result<(pipe::Sender, pipe::Receiver)> {
    let sender = loop {
        match pipe::OpenOptions::new().open_sender(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => sleep(UNREAD).await,
            opened => break opened?,
        }
    };
    let guard = pipe::OpenOptions::new().open_receiver(path)?;
    Ok((sender, guard))
}

async fn copy_all(
    from: &mut (impl AsyncRead + Unpin),
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.flush().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Whether `path` is a FIFO.
#[must_use]
pub fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

/// Reads what comes until nobody can write any more, for a process without a reader.
pub async fn discard(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(1..) = from.read(&mut buffer).await {}
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        (folder, path)
    }

    #[tokio::test]
    async fn a_guest_that_does_not_take_a_stream_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let guest = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(b"OK 1\n").await.unwrap();
            // Nothing more.
            let mut rest = Vec::new();
            connection.read_to_end(&mut rest).await.unwrap();
            rest
        };
        let opened = open_within(&path, "s0", Duration::from_millis(200));
        let both = async { tokio::join!(opened, guest) };
        let (opened, asked) = timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(asked.ends_with(b"stream s0\n"), "{asked:?}");
    }

    #[test]
    fn outputs_are_told_apart() {
        assert_eq!(Output::parse(""), Ok(None));
        assert_eq!(Output::parse("/f"), Ok(Some(Output::Fifo("/f".into()))));
        let file = Output::parse("file:///l");
        assert_eq!(file, Ok(Some(Output::File("/l".into()))));
        assert!(Output::parse("binary:///logger").is_err());
    }

    #[tokio::test]
    async fn a_late_reader_gets_everything() {
        let (_folder, path) = fifo();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let output = Output::Fifo(path.clone());
        let copy = tokio::spawn(async move { output.copy(&mut ours).await });
        let write = tokio::spawn(async move { theirs.write_all(&sent).await });
        sleep(Duration::from_millis(100)).await;
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            File::open(path).unwrap().read_to_end(&mut all).unwrap();
            all
        });
        assert!(read.await.unwrap() == expected);
        write.await.unwrap().unwrap();
        copy.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reader_may_go_and_another_come() {
        let (_folder, path) = fifo();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let output = Output::Fifo(path.clone());
        let copy = tokio::spawn(async move { output.copy(&mut ours).await });
        let read = |path: PathBuf| {
            tokio::task::spawn_blocking(move || {
                let mut byte = [0];
                File::open(path).unwrap().read_exact(&mut byte).unwrap();
                byte[0]
            })
        };
        let first = read(path.clone());
        theirs.write_all(b"1").await.unwrap();
        assert_eq!(first.await.unwrap(), b'1');
        theirs.write_all(b"2").await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(read(path).await.unwrap(), b'2');
        drop(theirs);
        copy.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn input_ends_when_guard_and_writer_are_gone() {
        let (_folder, path) = fifo();
        let (from, guard) = open_input(&path).unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let copy = tokio::spawn(async move { copy_input(from, &mut ours).await });
        for text in ["one", "two"] {
            let mut writer = File::options().write(true).open(&path).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        let mut six = [0; 6];
        theirs.read_exact(&mut six).await.unwrap();
        assert_eq!(&six, b"onetwo");
        assert!(!copy.is_finished());
        drop(guard);
        assert_eq!(theirs.read(&mut six).await.unwrap(), 0);
        copy.await.unwrap().unwrap();
    }
}

//! The guest's console, kept for error messages.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};

/// Most bytes that are kept: a guest prints as much as it likes.
const MOST: u64 = 1 << 20;
/// What stays of them when there are more.
const KEPT: usize = 256 << 10;

/// Writes what arrives at the returned end to `log`, and of too much only the end.
pub(super) fn record(log: &Path) -> Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    thread::spawn(move || {
        if let Err(error) = copy(ours, file) {
            tracing::debug!(%error, "the guest's console is no longer kept");
        }
    });
    Ok(theirs.into())
}

fn copy(mut from: impl Read, mut log: File) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut failed = Ok(());
    loop {
        let length = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return failed,
            Ok(length) => length,
        };
        // A full disk must not stop the guest: the rest is read and lost.
        if failed.is_ok() {
            failed = append(&mut log, &buffer[..length]);
        }
    }
}

fn append(log: &mut File, bytes: &[u8]) -> io::Result<()> {
    if log.stream_position()? + bytes.len() as u64 > MOST {
        let mut kept = Vec::with_capacity(KEPT);
        log.seek(SeekFrom::End(
            -i64::try_from(KEPT).map_err(io::Error::other)?,
        ))?;
        log.read_to_end(&mut kept)?;
        log.set_len(0)?;
        log.rewind()?;
        log.write_all(&kept)?;
    }
    log.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_flood_is_kept() {
        let mut log = tempfile::tempfile().unwrap();
        let lines: String = (0..400_000).map(|n| format!("line {n}\n")).collect();
        copy(lines.as_bytes(), log.try_clone().unwrap()).unwrap();
        let mut kept = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut kept).unwrap();
        assert!(kept.len() as u64 <= MOST && lines.ends_with(&kept));
        assert!(kept.len() >= KEPT);
    }
}

//! What parts and the guest's console print, kept with a bound.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of a log that are kept: a guest prints as much as it likes.
const MOST: u64 = 1 << 20;
/// What stays of them when there are more.
const KEPT: usize = 256 << 10;
/// Bytes of a log that are looked at for its last lines.
const LONGEST_TAIL: u64 = 64 << 10;

/// Lines of the guest's console that go into an error: a kernel panic with its registers fits.
pub(crate) const CONSOLE_LINES: usize = 50;

/// Writes what comes `from` there to `path`, behind what is there, and of too much only the end, until it ends.
///
/// # Errors
/// When the file cannot be made.
pub(crate) fn record(path: &Path, from: impl AsyncRead + Unpin + Send + 'static) -> io::Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.seek(SeekFrom::End(0))?;
    tokio::spawn(copy(from, file));
    Ok(())
}

async fn copy(mut from: impl AsyncRead + Unpin, mut log: File) {
    let mut buffer = vec![0; 16 << 10];
    let mut broken = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // A full disk must not stop a part: the rest is read and lost.
        if !broken && let Err(error) = append(&mut log, &buffer[..length]) {
            tracing::debug!(%error, "a log is no longer kept");
            broken = true;
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

/// The last `count` lines of a log that are not empty, for a message; says so when there are none.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let bytes = end_of(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return "nothing".to_owned();
    }
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LONGEST_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_flood_is_kept() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines: String = (0..400_000).map(|n| format!("line {n}\n")).collect();
        copy(lines.as_bytes(), log.reopen().unwrap()).await;
        let kept = std::fs::read_to_string(log.path()).unwrap();
        assert!(kept.len() as u64 <= MOST && lines.ends_with(&kept));
        assert!(kept.len() >= KEPT);
        assert_eq!(last_lines(log.path(), 2), "line 399998\nline 399999");
    }
}

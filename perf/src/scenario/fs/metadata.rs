//! One step on many small files, one after the other.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::error::LoadError;
use super::ground::{SMALL, small_name};
use super::workload::Step;
use crate::interrupt::Interrupt;

/// Does `step` to each of the files in `dir`.
pub(super) fn run(
    step: Step,
    dir: &Path,
    files: u32,
    interrupt: &Interrupt,
) -> Result<(), LoadError> {
    let act = match step {
        Step::Create => create,
        Step::Stat => stat,
        Step::OpenRead => open_read,
        Step::Unlink => unlink,
    };
    for index in 0..files {
        interrupt.check()?;
        let path = dir.join(small_name(index));
        if let Err(source) = act(&path) {
            return Err(LoadError::File { path, source });
        }
    }
    Ok(())
}

/// Reads each of the files in `dir`, which are so long, to its end.
pub(super) fn read_whole(
    dir: &Path,
    files: u32,
    bytes: usize,
    interrupt: &Interrupt,
) -> Result<(), LoadError> {
    let mut buffer = Vec::with_capacity(bytes + 1);
    for index in 0..files {
        interrupt.check()?;
        let path = dir.join(small_name(index));
        buffer.clear();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut buffer));
        if let Err(source) = read.and_then(|got| whole(got == bytes)) {
            return Err(LoadError::File { path, source });
        }
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<()> {
    File::create_new(path)?.write_all(&[0xa5; SMALL])
}

fn stat(path: &Path) -> io::Result<()> {
    // stat(2), as nearly all programs call it. The standard library asks for the time of birth, too, which
    // is one more request of a daemon that knows it.
    let status = rustix::fs::lstat(path)?;
    whole(u64::try_from(status.st_size) == Ok(SMALL as u64))
}

fn open_read(path: &Path) -> io::Result<()> {
    let mut buffer = [0; 2 * SMALL];
    let got = File::open(path)?.read(&mut buffer)?;
    whole(got == SMALL)
}

fn unlink(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// A contestant that is quick because it does not do the work has lost.
fn whole(is: bool) -> io::Result<()> {
    match is {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        for step in [Step::Create, Step::Stat, Step::OpenRead, Step::Unlink] {
            run(step, dir.path(), 20, &interrupt).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(run(Step::Stat, dir.path(), 1, &interrupt).is_err());
    }

    #[test]
    fn a_short_file_is_no_success() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(small_name(0)), "short").unwrap();
        let interrupt = Interrupt::default();
        assert!(read_whole(dir.path(), 1, 5, &interrupt).is_ok());
        assert!(read_whole(dir.path(), 1, 6, &interrupt).is_err());
        for step in [Step::Stat, Step::OpenRead] {
            assert!(run(step, dir.path(), 1, &interrupt).is_err());
        }
    }
}

//! Programs of the host for a guest that has nothing but busybox.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use super::initramfs::ExtraFile;
use crate::need;

/// A program of the host and the libraries that ldd(1) names, each at the place where its loader looks
/// for it; the program itself in `/bin`.
pub(super) fn with_libraries(name: &str) -> Result<Vec<ExtraFile>, Error> {
    let (program, name) = match Path::new(name).file_name().and_then(|it| it.to_str()) {
        Some(last) if last != name => (PathBuf::from(name), last),
        _ => (need::program(name)?, name),
    };
    let output = Command::new(need::program("ldd")?).arg(&program).output();
    let output = output.map_err(Error::io("run ldd"))?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut files = vec![copy(&program, &format!("/bin/{name}"))?];
    for library in libraries(&listed) {
        files.push(copy(Path::new(library), library)?);
    }
    Ok(files)
}

fn copy(from: &Path, to: &str) -> Result<ExtraFile, Error> {
    let read = || -> std::io::Result<_> { Ok((fs::read(from)?, fs::metadata(from)?)) };
    let (content, metadata) = read().map_err(Error::io("read a program for the guest"))?;
    Ok(ExtraFile {
        path: to.to_owned(),
        permissions: metadata.permissions().mode() & 0o777,
        content,
    })
}

/// `NAME => /path (address)`, or `/path (address)` for the loader.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    let lines = listed.lines();
    lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found() {
        let listed = "\tlinux-vdso.so.1 (0x00007f7a2e356000)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f7a2e12c000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f7a2e358000)\n";
        let found: Vec<_> = libraries(listed).collect();
        let wanted = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, wanted);
        assert_eq!(libraries("\tnot a dynamic executable\n").count(), 0);
    }
}

//! Whether a program needs an interpreter (ELF-64 object file format, program header).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `PT_INTERP`: the program names the dynamic linker that starts it.
const INTERPRETER: u32 = 3;
/// Size of an ELF-64 program header.
const HEADER: u64 = 56;

/// Whether `path` is an ELF-64 program that names a dynamic linker.
pub(super) fn is_dynamic(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| names_interpreter(&file) == Some(true))
}

fn names_interpreter(file: &File) -> Option<bool> {
    let mut magic = [0; 5];
    file.read_exact_at(&mut magic, 0).ok()?;
    if magic != *b"\x7fELF\x02" {
        return None;
    }
    // e_phoff at 32, e_phnum at 56
    let mut offset = [0; 8];
    file.read_exact_at(&mut offset, 32).ok()?;
    let mut count = [0; 2];
    file.read_exact_at(&mut count, 56).ok()?;
    let offset = u64::from_le_bytes(offset);
    for index in 0..u64::from(u16::from_le_bytes(count)) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, offset.checked_add(index * HEADER)?)
            .ok()?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic_and_busybox_is_not() {
        assert!(is_dynamic(&std::env::current_exe().unwrap()));
        assert!(
            !is_dynamic("/bin/busybox".as_ref()),
            "busybox-static is installed by make setup"
        );
        assert!(!is_dynamic("/etc/passwd".as_ref()));
    }
}

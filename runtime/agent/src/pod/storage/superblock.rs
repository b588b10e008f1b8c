//! Which file system a disk holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// File systems by the bytes that say so: name, where, what. The places are those of the kernel's own
/// readers (fs/*/super.c).
const MARKS: [(&str, u64, &[u8]); 5] = [
    ("ext4", 1024 + 56, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
    ("squashfs", 0, b"hsqs"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
];

/// The kernel's name of the file system on a device or in a file; `None` where none is known.
pub(super) fn file_system(device: &Path) -> io::Result<Option<&'static str>> {
    let file = File::open(device)?;
    for (name, place, mark) in MARKS {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..mark.len()];
        match file.read_exact_at(bytes, place) {
            Ok(()) if bytes == mark => return Ok(Some(name)),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use lab::scratch::Scratch;

    use super::*;

    #[test]
    fn file_systems_are_known_by_their_marks() {
        let scratch = Scratch::new("superblock").unwrap();
        let path = scratch.join("image");
        for (name, place, mark) in MARKS {
            let file = File::create(&path).unwrap();
            file.write_all_at(mark, place).unwrap();
            assert_eq!(file_system(&path).unwrap(), Some(name));
            file.set_len(place + 1).unwrap();
            assert_eq!(file_system(&path).unwrap(), None, "{name} cut short");
        }
    }
}

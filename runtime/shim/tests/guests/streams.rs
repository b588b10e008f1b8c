//! Bytes to and from processes.

use std::fs;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::containerd::Containerd;

/// So many bytes of a file come out of a process whole.
pub(crate) fn flood(containerd: &Containerd, bytes: usize) {
    let sent = lab::pattern(1, bytes);
    let file = containerd.scratch.join("data/flood");
    fs::write(&file, &sent).unwrap();
    let began = Instant::now();
    let ran = containerd.exec("a", "cat /data/flood");
    eprintln!("{bytes} bytes in {:?}", began.elapsed());
    fs::remove_file(file).unwrap();
    assert_eq!(ran.out.len(), bytes, "{}", ran.err);
    assert!(
        Sha256::digest(&ran.out) == Sha256::digest(&sent),
        "other bytes"
    );
}

/// So many go in and out at the same time, beside words on standard error; their end is the process's.
pub(crate) fn echo(containerd: &Containerd, id: &str, bytes: usize) {
    let sent = lab::pattern(1, bytes);
    let ran = containerd.exec_with(id, "cat; echo done >&2; exit 3", &sent);
    assert_eq!((ran.code, ran.err.as_str()), (3, "done\n"));
    assert!(
        ran.out == sent,
        "{} of {bytes} bytes, or others",
        ran.out.len()
    );
}

/// Input that ends at once.
pub(crate) fn short_input(containerd: &Containerd) {
    let ran = containerd.exec_with("a", "cat; echo end", b"x");
    assert_eq!(ran.ok(), "xend\n");
}

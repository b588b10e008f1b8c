//! The tree the guest wrote, seen from the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::run;

/// Folder of the tree in the guest.
const TREE: &str = "srv/tree";

/// Compares the checksums the guest made with those of the same files in `directory`.
pub(crate) fn compare(directory: &Path, guest: &[String]) -> Result<String> {
    let output = Command::new("sh")
        .args(["-c", "find . -type f -exec sha256sum {} + | sort -k 2"])
        .env("LC_ALL", "C")
        .current_dir(directory)
        .output()
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host: Vec<_> = text.lines().collect();
    ensure!(
        !host.is_empty(),
        "the host sees no file in {}",
        directory.display()
    );
    ensure!(
        host == guest,
        "the host sees other files than the guest wrote:\nhost:\n{}\nguest:\n{}",
        host.join("\n"),
        guest.join("\n")
    );
    Ok(format!("{} files equal on both sides", host.len()))
}

/// The tree in a root directory.
pub(crate) fn in_directory(root: &Path) -> PathBuf {
    root.join(TREE)
}

/// Copies the tree out of an ext4 image that no guest uses any more, and returns where it is.
pub(crate) fn from_image(image: &Path, work: &Path) -> Result<PathBuf> {
    let out = work.join("tree-from-image");
    if out.exists() {
        std::fs::remove_dir_all(&out)
            .with_context(|| format!("cannot remove {}", out.display()))?;
    }
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let request = format!("rdump /{TREE} {}", out.display());
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    run(Command::new("debugfs")
        .env("PATH", path)
        .arg("-R")
        .arg(request)
        .arg(image))?;
    Ok(out.join("tree"))
}

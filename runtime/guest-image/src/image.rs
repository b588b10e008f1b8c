//! The pair a VMM starts: kernel and initramfs.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::{Cache, Error, Kernel};

/// Raised when the initramfs's layout changes, so that no old one is taken from the cache.
const LAYOUT: u32 = 1;

/// A kernel and an initramfs, ready to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// The kernel's version.
    pub version: String,
    /// The ELF kernel: starts through PVH (its note `XEN_ELFNOTE_PHYS32_ENTRY`) or the 64-bit
    /// boot protocol.
    pub vmlinux: PathBuf,
    /// `init` as `/init`, and the modules in `/modules` with `/modules/load-order`.
    pub initramfs: PathBuf,
}

impl GuestImage {
    /// Builds the image, or takes it from the cache when kernel, `init` and `modules` are the same.
    ///
    /// # Errors
    /// When a file cannot be read, unpacked or written.
    pub fn build(
        cache: &Cache,
        kernel: &Kernel,
        init: &Path,
        modules: &[&str],
    ) -> Result<Self, Error> {
        let _lock = cache.lock()?;
        let program = fs::read(init).map_err(Error::file("read the guest's init program", init))?;
        let vmlinux = kernel.vmlinux(cache)?;
        let name = format!("initramfs-{:016x}", key(&vmlinux, &program, modules));
        let initramfs = cache.path(&name);
        if !initramfs.exists() {
            let archive = initramfs_archive(kernel, &program, modules)?;
            cache.publish(&name, |draft| {
                fs::write(draft, &archive).map_err(Error::file("write", draft))
            })?;
        }
        Ok(Self {
            version: kernel.version.clone(),
            vmlinux,
            initramfs,
        })
    }
}

/// A cache key only, so a hash of 64 bits that no attacker feeds is enough.
fn key(vmlinux: &Path, init: &[u8], modules: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (LAYOUT, vmlinux, init, modules).hash(&mut hasher);
    hasher.finish()
}

fn initramfs_archive(kernel: &Kernel, init: &[u8], modules: &[&str]) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    archive.file("/init", 0o755, init)?;
    for directory in ["/dev", "/proc", "/sys", "/run", "/root", "/modules"] {
        archive.directory(directory, 0o755);
    }
    // The kernel opens /dev/console for init before devtmpfs is mounted.
    archive.character_device("/dev/console", 0o600, 5, 1);
    let mut list = String::new();
    for path in kernel.modules()?.load_order(modules)? {
        let content = fs::read(&path).map_err(Error::file("read", &path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("/modules/{name}"), 0o600, &content)?;
        list.push_str(&name);
        list.push('\n');
    }
    archive.file("/modules/load-order", 0o600, list.as_bytes())?;
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_every_input() {
        let base = key("a".as_ref(), b"init", &["x", "y"]);
        assert_eq!(base, key("a".as_ref(), b"init", &["x", "y"]));
        assert_ne!(base, key("b".as_ref(), b"init", &["x", "y"]));
        assert_ne!(base, key("a".as_ref(), b"INIT", &["x", "y"]));
        assert_ne!(base, key("a".as_ref(), b"init", &["xy"]));
    }
}

//! Finds a guest kernel: installed, cached or downloaded.

use std::fs;
use std::path::{Path, PathBuf};

use crate::payload::Payload;
use crate::{Cache, Error, ModuleIndex, package};

/// Debian's name for kernels without drivers for physical hardware.
const FLAVOUR: &str = "-cloud-amd64";

/// Where a kernel came from or would come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// Installed on this host, in `/boot`.
    Installed,
    /// Unpacked in the cache.
    Cached,
    /// Not here yet: the package apt would download.
    Download(String),
}

/// A Debian kernel: its bzImage and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub version: String,
    /// The folder that holds `boot` and `lib/modules`.
    pub root: PathBuf,
}

impl Kernel {
    /// The installed kernel, else the cached, else downloads one.
    ///
    /// # Errors
    /// When none is here and none can be had.
    pub fn obtain(cache: &Cache) -> Result<Self, Error> {
        if let Some(kernel) = Self::installed().or_else(|| Self::cached(cache)) {
            return Ok(kernel);
        }
        let _lock = cache.lock()?;
        if let Some(kernel) = Self::cached(cache) {
            return Ok(kernel);
        }
        let root = package::unpack(cache, &package::current_name()?)?;
        Self::newest_in(&root).ok_or(Error::NoKernel(root))
    }

    /// Says where [`Kernel::obtain`] would find its kernel, without downloading.
    ///
    /// # Errors
    /// When there is none and apt knows none.
    pub fn locate(cache: &Cache) -> Result<KernelSource, Error> {
        if Self::installed().is_some() {
            Ok(KernelSource::Installed)
        } else if Self::cached(cache).is_some() {
            Ok(KernelSource::Cached)
        } else {
            package::current_name().map(KernelSource::Download)
        }
    }

    /// Path of the bzImage.
    #[must_use]
    pub fn bzimage(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.version))
    }

    /// The kernel's modules.
    ///
    /// # Errors
    /// When their index can be neither read nor made.
    pub fn modules(&self) -> Result<ModuleIndex, Error> {
        ModuleIndex::read(&self.root, &self.version)
    }

    /// The ELF kernel, unpacked into the cache once per version and build.
    ///
    /// # Errors
    /// When the bzImage cannot be read or unpacked.
    pub fn vmlinux(&self, cache: &Cache) -> Result<PathBuf, Error> {
        let bzimage = self.bzimage();
        let size = fs::metadata(&bzimage)
            .map_err(Error::file("read", &bzimage))?
            .len();
        let name = format!("vmlinux-{}-{size:x}", self.version);
        let path = cache.path(&name);
        if path.exists() {
            return Ok(path);
        }
        cache.publish(&name, |draft| {
            let image = fs::read(&bzimage).map_err(Error::file("read", &bzimage))?;
            let payload = Payload::find(&image).map_err(|reason| Error::NotBzImage {
                path: bzimage.clone(),
                reason,
            })?;
            let elf = payload.unpack(&bzimage)?;
            fs::write(draft, elf).map_err(Error::file("write", draft))
        })
    }

    fn installed() -> Option<Self> {
        let kernel = Self::newest_in(Path::new("/"))?;
        let usable = fs::File::open(kernel.bzimage()).is_ok();
        let index = kernel
            .root
            .join("lib/modules")
            .join(&kernel.version)
            .join("modules.dep");
        (usable && index.exists()).then_some(kernel)
    }

    fn cached(cache: &Cache) -> Option<Self> {
        let mut packages = folders(&cache.path("."), "linux-image-");
        packages.retain(|name| name.ends_with(FLAVOUR));
        packages.sort_by_key(|name| version_key(name));
        packages
            .iter()
            .rev()
            .find_map(|name| Self::newest_in(&cache.path(name)))
    }

    fn newest_in(root: &Path) -> Option<Self> {
        let mut versions = folders(&root.join("lib/modules"), "");
        versions.retain(|version| {
            version.ends_with(FLAVOUR) && root.join(format!("boot/vmlinuz-{version}")).exists()
        });
        versions.sort_by_key(|version| version_key(version));
        versions.pop().map(|version| Self {
            version,
            root: root.to_owned(),
        })
    }
}

pub(crate) fn folders(parent: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Numbers compare as numbers: 6.1.0-9 is older than 6.1.0-56.
pub(crate) fn version_key(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_wins() {
        let dir = tempfile::tempdir().unwrap();
        for version in [
            "6.1.0-9-cloud-amd64",
            "6.1.0-56-cloud-amd64",
            "7.0.0-1-amd64",
        ] {
            fs::create_dir_all(dir.path().join("lib/modules").join(version)).unwrap();
            fs::create_dir_all(dir.path().join("boot")).unwrap();
            fs::write(dir.path().join(format!("boot/vmlinuz-{version}")), "").unwrap();
        }
        let kernel = Kernel::newest_in(dir.path()).unwrap();
        assert_eq!(kernel.version, "6.1.0-56-cloud-amd64");
    }

    #[test]
    fn modules_without_a_kernel_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/modules/6.1.0-9-cloud-amd64")).unwrap();
        assert_eq!(Kernel::newest_in(dir.path()), None);
    }
}

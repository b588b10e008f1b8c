//! Finds a guest kernel: installed, cached or downloaded.

use std::fs;
use std::path::{Path, PathBuf};

use crate::payload::Payload;
use crate::{Cache, Error, ModuleIndex, package};

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Without drivers for physical hardware, and without 9p: what guests run.
    Cloud,
    /// With everything, 9p and brd among it.
    Generic,
}

impl Flavour {
    /// The package that always depends on the newest kernel of this flavour.
    pub(crate) fn meta_package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Generic => "linux-image-amd64",
        }
    }

    /// Whether a version, or the name of a package that ends with one, is of it: `6.1.0-56-cloud-amd64`.
    fn names(self, version: &str) -> bool {
        let Some(rest) = version.strip_suffix("-amd64") else {
            return false;
        };
        match self {
            Self::Cloud => rest.ends_with("-cloud"),
            // `rt` and the like end in letters, too.
            Self::Generic => rest.ends_with(|last: char| last.is_ascii_digit()),
        }
    }
}

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
    /// The installed cloud kernel, else the cached, else downloads one.
    ///
    /// # Errors
    /// When none is here and none can be had.
    pub fn obtain(cache: &Cache) -> Result<Self, Error> {
        Self::obtain_flavour(cache, Flavour::Cloud)
    }

    /// The same of any flavour.
    ///
    /// # Errors
    /// When none is here and none can be had.
    pub fn obtain_flavour(cache: &Cache, flavour: Flavour) -> Result<Self, Error> {
        let cached = || Self::cached(cache, flavour);
        if let Some(kernel) = Self::installed(flavour).or_else(cached) {
            return Ok(kernel);
        }
        let _lock = cache.lock()?;
        if let Some(kernel) = cached() {
            return Ok(kernel);
        }
        let root = package::unpack(cache, &package::current_name(flavour)?)?;
        Self::newest_in(&root, flavour).ok_or(Error::NoKernel(root))
    }

    /// Says where [`Kernel::obtain`] would find its kernel, without downloading.
    ///
    /// # Errors
    /// When there is none and apt knows none.
    pub fn locate(cache: &Cache) -> Result<KernelSource, Error> {
        if Self::installed(Flavour::Cloud).is_some() {
            Ok(KernelSource::Installed)
        } else if Self::cached(cache, Flavour::Cloud).is_some() {
            Ok(KernelSource::Cached)
        } else {
            package::current_name(Flavour::Cloud).map(KernelSource::Download)
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

    fn installed(flavour: Flavour) -> Option<Self> {
        let kernel = Self::newest_in(Path::new("/"), flavour)?;
        let usable = fs::File::open(kernel.bzimage()).is_ok();
        let index = kernel
            .root
            .join("lib/modules")
            .join(&kernel.version)
            .join("modules.dep");
        (usable && index.exists()).then_some(kernel)
    }

    fn cached(cache: &Cache, flavour: Flavour) -> Option<Self> {
        let mut packages = folders(&cache.path("."), "linux-image-");
        packages.retain(|name| flavour.names(name));
        packages.sort_by_key(|name| version_key(name));
        packages
            .iter()
            .rev()
            .find_map(|name| Self::newest_in(&cache.path(name), flavour))
    }

    fn newest_in(root: &Path, flavour: Flavour) -> Option<Self> {
        let mut versions = folders(&root.join("lib/modules"), "");
        versions.retain(|version| {
            flavour.names(version) && root.join(format!("boot/vmlinuz-{version}")).exists()
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
            "7.0.0-2-rt-amd64",
        ] {
            fs::create_dir_all(dir.path().join("lib/modules").join(version)).unwrap();
            fs::create_dir_all(dir.path().join("boot")).unwrap();
            fs::write(dir.path().join(format!("boot/vmlinuz-{version}")), "").unwrap();
        }
        let newest = |flavour| Kernel::newest_in(dir.path(), flavour).unwrap().version;
        assert_eq!(newest(Flavour::Cloud), "6.1.0-56-cloud-amd64");
        assert_eq!(newest(Flavour::Generic), "7.0.0-1-amd64");
    }

    #[test]
    fn modules_without_a_kernel_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/modules/6.1.0-9-cloud-amd64")).unwrap();
        assert_eq!(Kernel::newest_in(dir.path(), Flavour::Cloud), None);
    }
}

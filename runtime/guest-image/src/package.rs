//! Fetches and unpacks the kernel's Debian package, without installing it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::Tool;
use crate::{Cache, Error, Flavour};

const APT_CACHE: Tool = Tool {
    program: "apt-cache",
    package: "apt",
};
const APT_GET: Tool = Tool {
    program: "apt-get",
    package: "apt",
};
const DPKG_DEB: Tool = Tool {
    program: "dpkg-deb",
    package: "dpkg",
};

/// Name of the real kernel package that apt would install today.
pub(crate) fn current_name(flavour: Flavour) -> Result<String, Error> {
    let package = flavour.meta_package();
    let output = APT_CACHE.output(|apt| apt.args(["depends", package]));
    let text = match output {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(Error::Tool { .. }) => return Err(Error::UnknownPackage(package.into())),
        Err(error) => return Err(error),
    };
    kernel_dependency(&text).ok_or_else(|| Error::UnknownPackage(package.into()))
}

fn kernel_dependency(depends: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// The files of a Debian package that need not be installed: from the cache, else downloaded and unpacked there.
/// Returns the folder that is its `/`.
///
/// # Errors
/// When the package is not in the cache and cannot be had.
pub fn unpacked(cache: &Cache, package: &str) -> Result<PathBuf, Error> {
    let _lock = cache.lock()?;
    let name = format!("package-{package}");
    match cache.path(&name) {
        there if there.is_dir() => Ok(there),
        _ => unpack_as(cache, package, &name),
    }
}

/// Downloads `package` and unpacks it into the cache; returns the folder that is its `/`.
pub(crate) fn unpack(cache: &Cache, package: &str) -> Result<PathBuf, Error> {
    tracing::info!(package, "downloading the guest's kernel");
    unpack_as(cache, package, package)
}

fn unpack_as(cache: &Cache, package: &str, name: &str) -> Result<PathBuf, Error> {
    cache.publish(name, |draft| {
        let download = draft.join("download");
        fetch(package, &download)?.unpack(draft)?;
        fs::remove_dir_all(&download).map_err(Error::file("remove", &download))
    })
}

/// A package that was downloaded.
pub(crate) struct Fetched {
    archive: PathBuf,
}

impl Fetched {
    /// Unpacks its files beneath `root`.
    pub(crate) fn unpack(&self, root: &Path) -> Result<(), Error> {
        DPKG_DEB
            .output(|dpkg| dpkg.arg("-x").arg(&self.archive).arg(root))
            .map(drop)
    }

    /// As Debian writes it: `6.1.192-2`.
    pub(crate) fn version(&self) -> Result<String, Error> {
        let version = DPKG_DEB.output(|dpkg| dpkg.arg("-f").arg(&self.archive).arg("Version"))?;
        Ok(String::from_utf8_lossy(&version).trim().to_owned())
    }
}

/// Downloads what apt would install into the folder `download`, which holds nothing else.
pub(crate) fn fetch(package: &str, download: &Path) -> Result<Fetched, Error> {
    fs::create_dir_all(download).map_err(Error::file("make", download))?;
    // Root's download otherwise warns that its _apt user cannot enter our folder.
    let arguments = ["-q", "-o", "APT::Sandbox::User=root", "download", package];
    APT_GET
        .output(|apt| apt.args(arguments).current_dir(download))
        .map_err(|source| Error::Download {
            package: package.to_owned(),
            source: Box::new(source),
        })?;
    let archive = only_file(download)?;
    Ok(Fetched { archive })
}

fn only_file(directory: &Path) -> Result<PathBuf, Error> {
    let mut entries = fs::read_dir(directory).map_err(Error::file("list", directory))?;
    match entries.next() {
        Some(entry) => Ok(entry.map_err(Error::file("list", directory))?.path()),
        None => Err(Error::NoKernel(directory.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_among_dependencies() {
        let text = "linux-image-cloud-amd64\n  PreDepends: x\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(
            kernel_dependency(text).as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(kernel_dependency("linux-image-cloud-amd64\n"), None);
    }
}

//! Fetches and unpacks the kernel's Debian package, without installing it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::Tool;
use crate::{Cache, Error};

/// Always depends on the newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

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
pub(crate) fn current_name() -> Result<String, Error> {
    let output = APT_CACHE.output(|apt| apt.args(["depends", META_PACKAGE]));
    let text = match output {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(Error::Tool { .. }) => return Err(Error::UnknownPackage(META_PACKAGE.into())),
        Err(error) => return Err(error),
    };
    kernel_dependency(&text).ok_or_else(|| Error::UnknownPackage(META_PACKAGE.into()))
}

fn kernel_dependency(depends: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// Downloads `package` and unpacks it into the cache; returns the folder that is its `/`.
pub(crate) fn unpack(cache: &Cache, package: &str) -> Result<PathBuf, Error> {
    tracing::info!(package, "downloading the guest's kernel");
    cache.publish(package, |draft| {
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

//! The slim kernel: Debian's source with a configuration of ours, for guests that load no modules.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::thread;

use crate::kernel::{Kernel, folders, version_key};
use crate::package::{self, Fetched};
use crate::tool::Tool;
use crate::{Cache, Error};

/// What the kernel has beyond `make allnoconfig`.
const CONFIG: &str = include_str!("../slim-kernel.config");
/// Debian's package of the source, and the archive and folder in it.
const SOURCE: &str = "linux-source-6.1";
/// Large parts of the source that no guest needs.
const LEFT_OUT: [&str; 2] = ["drivers/gpu/drm/amd/include", "tools/testing"];
/// What a slim kernel's folder in the cache begins with.
const PREFIX: &str = "linux-slim-";
/// Builders of the kernel wait for each other, and nobody else for them.
const LOCK: &str = "lock-slim";

/// Runs `make`.
const NICE: Tool = Tool {
    program: "nice",
    package: "coreutils",
};
const TAR: Tool = Tool {
    program: "tar",
    package: "tar",
};

impl Kernel {
    /// The slim kernel where [`build_slim`](Self::build_slim) made one of this configuration, else as
    /// [`obtain`](Self::obtain).
    ///
    /// # Errors
    /// As `obtain`.
    pub fn for_guests(cache: &Cache) -> Result<Self, Error> {
        Self::slim(cache).map_or_else(|| Self::obtain(cache), Ok)
    }

    /// The newest slim kernel in the cache, if there is one of this configuration.
    #[must_use]
    pub fn slim(cache: &Cache) -> Option<Self> {
        let ending = format!("-{}", key());
        let mut names = folders(&cache.path("."), PREFIX);
        names.retain(|name| name.ends_with(&ending));
        names.sort_by_key(|name| version_key(name));
        names.iter().rev().find_map(|name| read(&cache.path(name)))
    }

    /// Builds the slim kernel out of the source that apt offers, with every processor and the lowest
    /// priority, or takes it from the cache. Older ones go.
    ///
    /// # Errors
    /// When a program is missing or fails, or the source does not know a line of the configuration.
    pub fn build_slim(cache: &Cache) -> Result<Self, Error> {
        let _lock = cache.lock_named(LOCK)?;
        let workshop = cache.workshop("slim-source")?;
        build_in(cache, workshop.path())
    }
}

fn build_in(cache: &Cache, draft: &Path) -> Result<Kernel, Error> {
    let package = package::fetch(SOURCE, &draft.join("download"))?;
    let name = format!("{PREFIX}{}-{}", package.version()?, key());
    if let Some(kernel) = read(&cache.path(&name)) {
        return Ok(kernel);
    }
    let source = unpack(&package, draft)?;
    configure(&source)?;
    tracing::info!(name, "building the slim kernel");
    make(&source, &["bzImage"])?;
    let version = make(&source, &["kernelrelease"])?;
    let _lock = cache.lock()?;
    let root = cache.publish(&name, |root| install(&source, &version, root))?;
    remove_old(cache, &name, &version)?;
    Ok(Kernel { version, root })
}

/// Other slim kernels, and what was unpacked of one of this version.
fn remove_old(cache: &Cache, name: &str, version: &str) -> Result<(), Error> {
    let place = cache.path(".");
    let others = folders(&place, PREFIX).into_iter();
    for old in others.filter(|other| other != name) {
        let path = cache.path(&old);
        fs::remove_dir_all(&path).map_err(Error::file("remove", &path))?;
    }
    for old in folders(&place, &format!("vmlinux-{version}-")) {
        let path = cache.path(&old);
        fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    }
    Ok(())
}

/// The source's folder.
fn unpack(package: &Fetched, draft: &Path) -> Result<PathBuf, Error> {
    let unpacked = draft.join("package");
    package.unpack(&unpacked)?;
    let archive = unpacked.join(format!("usr/src/{SOURCE}.tar.xz"));
    TAR.output(|tar| {
        for part in LEFT_OUT {
            tar.arg(format!("--exclude={SOURCE}/{part}"));
        }
        tar.arg("-xf").arg(&archive).arg("-C").arg(draft)
    })?;
    Ok(draft.join(SOURCE))
}

fn configure(source: &Path) -> Result<(), Error> {
    let fragment = source.join("ringside.config");
    fs::write(&fragment, CONFIG).map_err(Error::file("write", &fragment))?;
    make(
        source,
        &["KCONFIG_ALLCONFIG=ringside.config", "allnoconfig"],
    )?;
    let path = source.join(".config");
    let made = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    // A line that depends on something else is dropped without a word.
    match missing(&made) {
        Some(line) => Err(Error::Unconfigurable {
            line: line.to_owned(),
        }),
        None => Ok(()),
    }
}

fn missing(made: &str) -> Option<&'static str> {
    let mut wanted = CONFIG.lines().filter(|line| line.starts_with("CONFIG_"));
    wanted.find(|wanted| !made.lines().any(|line| line == *wanted))
}

/// What it printed.
fn make(source: &Path, targets: &[&str]) -> Result<String, Error> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let printed = NICE.output(|nice| {
        let make = nice.args(["-n", "19", "make", "-s"]).current_dir(source);
        make.arg(format!("-j{jobs}")).args(targets)
    })?;
    Ok(String::from_utf8_lossy(&printed).trim().to_owned())
}

fn install(source: &Path, version: &str, root: &Path) -> Result<(), Error> {
    let boot = root.join("boot");
    let modules = root.join("lib/modules").join(version);
    for folder in [&boot, &modules] {
        fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
    }
    let copy = |from: PathBuf, to: PathBuf| {
        fs::copy(&from, &to)
            .map(drop)
            .map_err(Error::file("copy", from))
    };
    copy(
        source.join("arch/x86/boot/bzImage"),
        boot.join(format!("vmlinuz-{version}")),
    )?;
    copy(
        source.join(".config"),
        boot.join(format!("config-{version}")),
    )?;
    // It has none.
    let index = modules.join("modules.dep");
    File::create(&index)
        .map(drop)
        .map_err(Error::file("write", &index))
}

fn read(root: &Path) -> Option<Kernel> {
    let version = folders(&root.join("lib/modules"), "").pop()?;
    let kernel = Kernel {
        version,
        root: root.to_owned(),
    };
    kernel.bzimage().exists().then_some(kernel)
}

/// A kernel of another configuration is another kernel.
fn key() -> String {
    let mut hasher = DefaultHasher::new();
    CONFIG.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, version: &str) {
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::create_dir_all(root.join("lib/modules").join(version)).unwrap();
        fs::write(root.join(format!("boot/vmlinuz-{version}")), "").unwrap();
        fs::write(
            root.join("lib/modules").join(version).join("modules.dep"),
            "",
        )
        .unwrap();
    }

    #[test]
    fn only_kernels_of_this_configuration_count_and_the_newest_wins() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(Kernel::slim(&cache), None);
        put(
            &cache.path("linux-slim-6.1.200-1-0123456789abcdef"),
            "6.1.200-ringside",
        );
        assert_eq!(Kernel::slim(&cache), None);
        for version in ["6.1.9", "6.1.192"] {
            let folder = format!("linux-slim-{version}-2-{}", key());
            put(&cache.path(folder), &format!("{version}-ringside"));
        }
        let kernel = Kernel::slim(&cache).unwrap();
        assert_eq!(kernel.version, "6.1.192-ringside");
        assert_eq!(Kernel::for_guests(&cache).unwrap(), kernel);
        let modules = kernel.modules().unwrap();
        assert!(modules.load_order(&["virtio_pci"]).unwrap().is_empty());
    }

    #[test]
    fn a_line_that_did_not_make_it_is_named() {
        assert_eq!(missing(CONFIG), None);
        let without = CONFIG.replace("CONFIG_PVH=y", "# CONFIG_PVH is not set");
        assert_eq!(missing(&without), Some("CONFIG_PVH=y"));
    }
}

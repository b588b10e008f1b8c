//! Debian packages with all they depend on, fetched by apt and unpacked, not installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Downloads `packages` and all they depend on into `directory` and returns the archives.
///
/// apt is shown an empty system, so it finds the whole closure whatever is installed here.
pub(crate) fn download(packages: &[&str], directory: &Path) -> Result<Vec<PathBuf>> {
    let partial = directory.join("partial");
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let status = directory.join("status");
    fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "-y", "--download-only", "--no-install-recommends"]);
    apt.args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
    apt.arg("-o").arg(setting("Dir::State::status", &status));
    apt.arg("-o")
        .arg(setting("Dir::Cache::archives", directory));
    apt.arg("install").args(packages);
    run(&mut apt).context("apt-get cannot fetch the packages (run `apt-get update` first)")?;
    let entries = fs::read_dir(directory).context("cannot list the packages")?;
    let paths = entries.flatten().map(|entry| entry.path());
    let archives: Vec<_> = paths
        .filter(|path| path.extension() == Some(OsStr::new("deb")))
        .collect();
    ensure!(
        !archives.is_empty(),
        "apt-get fetched nothing into {}",
        directory.display()
    );
    Ok(archives)
}

/// Unpacks one package over `root`.
pub(crate) fn unpack(archive: &Path, root: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(root))
        .with_context(|| format!("cannot unpack {}", archive.display()))
}

/// Runs a program to its end; its own words become the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let output = command
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{} ended with {}: {}",
        program.display(),
        output.status,
        said.trim()
    )
}

fn setting(name: &str, path: &Path) -> std::ffi::OsString {
    let mut setting = std::ffi::OsString::from(format!("{name}="));
    setting.push(path);
    setting
}

//! What the demo shows, step by step.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use guest_image::Cache;

use crate::guest::Guest;
use crate::table::Table;
use crate::{http, metrics, packages, rootfs, tree};

/// Bytes of the data disk, and how much of it fio writes.
const DISK_SIZE: u64 = 256 << 20;
const FIO_SIZE: &str = "32m";

/// Where the guest's root file system comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Virtiofs,
    Block,
}

impl Root {
    fn name(self) -> &'static str {
        match self {
            Self::Virtiofs => "virtiofs",
            Self::Block => "block",
        }
    }
}

/// The demo's folders and programs.
pub(crate) struct Demo {
    ringside: PathBuf,
    work: PathBuf,
}

impl Demo {
    pub(crate) fn new(work: PathBuf) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program's folder")?;
        let ringside = own.with_file_name("ringside");
        ensure!(
            ringside.is_file(),
            "no ringside beside {}: build it first",
            own.display()
        );
        Ok(Self { ringside, work })
    }

    /// Fails early, with ringside's own words, when this host lacks something.
    pub(crate) fn check(&self) -> Result<()> {
        let status = Command::new(&self.ringside).arg("check").status();
        let status = status.with_context(|| format!("cannot start {}", self.ringside.display()))?;
        ensure!(
            status.success(),
            "this host lacks something: see the lines marked MISSING"
        );
        Ok(())
    }

    /// Makes the tree and the images that both guests use.
    pub(crate) fn assemble(&self, cache: &Cache, table: &mut Table) -> Result<()> {
        let pristine = table.step("prepare", "nginx from Debian", || rootfs::assemble(cache))?;
        table.step("prepare", "copy for this demo", || {
            let rootfs = self.rootfs();
            if rootfs.exists() {
                fs::remove_dir_all(&rootfs).context("cannot remove the last demo's tree")?;
            }
            packages::run(Command::new("cp").arg("-a").arg(&pristine).arg(&rootfs))?;
            Ok(((), rootfs.display().to_string()))
        })?;
        table.step("prepare", "ext4 root image", || {
            let mut build = Command::new(&self.ringside);
            build.args(["image", "build", "--from"]).arg(&pristine);
            packages::run(build.arg("--out").arg(self.image()))?;
            let size = fs::metadata(self.image())
                .context("the image is missing")?
                .len();
            Ok(((), format!("{} MiB", size >> 20)))
        })
    }

    /// Boots once and has every device do checked work.
    pub(crate) fn boot_and_show(&self, root: Root, table: &mut Table) -> Result<()> {
        let name = root.name();
        let logs = self.work.join(name);
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        self.show(root, &logs, table)
            .with_context(|| format!("logs are in {}", logs.display()))
    }

    fn show(&self, root: Root, logs: &Path, table: &mut Table) -> Result<()> {
        let name = root.name();
        let mut guest = table.step(name, "boot, start nginx", || {
            let mut guest = self.start(root, logs)?;
            guest.order("page")?;
            Ok((guest, "nginx runs".to_owned()))
        })?;
        table.step(name, "fetch page", || {
            let port = guest.published_port()?;
            let page = http::fetch(port)?;
            ensure!(
                page == rootfs::PAGE,
                "nginx served something else: {page:?}"
            );
            Ok(((), format!("{} bytes from 127.0.0.1:{port}", page.len())))
        })?;
        let sums = table.step(name, "write, read file tree", || {
            let sums = guest.order("tree")?;
            let shown = format!("{} checksums read back", sums.len());
            Ok((sums, shown))
        })?;
        if root == Root::Virtiofs {
            table.step(name, "compare on host", || {
                Ok((
                    (),
                    tree::compare(&tree::in_directory(&self.rootfs()), &sums)?,
                ))
            })?;
        }
        table.step(name, "fio verify=crc32c", || {
            let lines = guest.order(&format!("disk {FIO_SIZE}"))?;
            Ok(((), fio_verdict(&lines)?))
        })?;
        table.step(name, "read metrics", || Ok(((), read_metrics(logs)?)))?;
        table.step(name, "stop", || {
            Ok((guest.stop()?, "exit code 0".to_owned()))
        })?;
        if root == Root::Block {
            table.step(name, "compare on host", || {
                let directory = tree::from_image(&self.image(), &self.work)?;
                Ok(((), tree::compare(&directory, &sums)?))
            })?;
        }
        Ok(())
    }

    fn start(&self, root: Root, logs: &Path) -> Result<Guest> {
        let disk = self.work.join("data.img");
        let image =
            File::create(&disk).with_context(|| format!("cannot make {}", disk.display()))?;
        image
            .set_len(DISK_SIZE)
            .context("cannot size the data disk")?;
        let mut run = Command::new(&self.ringside);
        run.args([
            "run",
            "--net",
            "--publish",
            "0:80",
            "--cpus",
            "2",
            "--memory",
            "1G",
        ]);
        match root {
            Root::Virtiofs => run.arg("--rootfs").arg(self.rootfs()),
            Root::Block => run.args(["--root", "block", "--image"]).arg(self.image()),
        };
        run.arg("--disk").arg(&disk).arg("--keep-logs").arg(logs);
        run.arg("--metrics-dir").arg(logs);
        Guest::start(&self.ringside, &mut run, logs)
    }

    fn rootfs(&self) -> PathBuf {
        self.work.join("rootfs")
    }

    fn image(&self) -> PathBuf {
        self.work.join("root.img")
    }
}

/// fio's own line for the job, which says `err= 0` when every block verified.
fn fio_verdict(lines: &[String]) -> Result<String> {
    let verdict = lines
        .iter()
        .find(|line| line.starts_with("verify:") && line.contains("err="));
    let verdict = verdict.with_context(|| format!("no verdict in:\n{}", lines.join("\n")))?;
    ensure!(
        verdict.contains("err= 0"),
        "fio found errors:\n{}",
        lines.join("\n")
    );
    Ok(format!("{FIO_SIZE} random writes verified, 0 errors"))
}

/// Every daemon of the run serves a `.metrics` socket.
fn read_metrics(directory: &Path) -> Result<String> {
    let mut shown = Vec::new();
    for device in ["root", "disk0", "net"] {
        let requests = metrics::requests(&directory.join(format!("{device}.metrics")))?;
        shown.push(format!("{device} {requests}"));
    }
    Ok(format!("requests: {}", shown.join(", ")))
}

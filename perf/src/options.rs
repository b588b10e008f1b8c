//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::scenario::blk::BlkOptions;
use crate::scenario::boot::BootOptions;
use crate::scenario::documents::DocumentsOptions;
use crate::scenario::fs::FsOptions;
use crate::scenario::net::NetOptions;
use crate::scenario::pods::PodsOptions;

/// Measures Ringside's daemons and what people use today, alternating in one run
#[derive(Debug, Parser)]
#[command(name = "ringside-perf", version, about)]
pub struct Options {
    /// What to measure.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Block daemons: any vhost-user-blk socket, driven at native speed
    Blk(BlkOptions),
    /// File system daemons: any virtio-fs socket, mounted on the host's own kernel
    Fs(FsOptions),
    /// Network daemons: any vhost-user-net socket on a tap, driven at native speed
    Net(NetOptions),
    /// VMMs: time from exec to the guest's first process, and to its first instruction
    Boot(BootOptions),
    /// VMMs: their own memory, outside the guest's
    Memory(BootOptions),
    /// The documents' own tests in a guest: dd, fio, small files, nginx on 9p, virtiofs and block
    Documents(DocumentsOptions),
    /// Containers: from ctr's start to the first output, beside runc; a pod's memory part by part
    Start(PodsOptions),
    /// 1, 2, 4, 8 pods at once: time, memory, idle processor time; what a queue costs
    Growth(PodsOptions),
    /// Draws what runs wrote: one page for browsers, and Markdown
    Report(ReportOptions),
    /// Holds a run against an older one of the same scenario; exit code 1 if ours became worse, or failed
    Compare(CompareOptions),
}

/// Options of `report`.
#[derive(Args, Debug)]
pub struct ReportOptions {
    /// What --json wrote, of any scenarios
    #[arg(required = true, value_name = "FILE")]
    pub runs: Vec<PathBuf>,

    /// Write the page here; it needs no other file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write Markdown here; without either it goes to standard output
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Write drawings into this folder, one SVG file each, and show them in the Markdown
    #[arg(long, value_name = "FOLDER")]
    pub plots: Option<PathBuf>,
}

impl ReportOptions {
    /// The folder of the drawings as the Markdown calls it, with a slash at its end.
    #[must_use]
    pub fn plots_from_text(&self) -> Option<String> {
        let folder = self.plots.as_ref()?;
        let text = self.markdown.as_deref().and_then(Path::parent);
        let below = text.and_then(|it| folder.strip_prefix(it).ok());
        Some(format!("{}/", below.unwrap_or(folder).display()))
    }
}

/// Options of `compare`.
#[derive(Args, Debug)]
pub struct CompareOptions {
    /// The older run, as --json wrote it
    pub old: PathBuf,

    /// The newer one
    pub new: PathBuf,

    /// Percent by which a figure must differ, in 95 of 100 draws of its rounds, to count
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    pub threshold: f64,

    /// Take every figure by that of this contestant in the same run: what slowed the whole machine cancels out
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_are_found_from_the_text() {
        let options = |markdown: Option<&str>| ReportOptions {
            runs: Vec::new(),
            html: None,
            markdown: markdown.map(PathBuf::from),
            plots: Some("docs/performance/plots".into()),
        };
        let seen = |markdown| options(markdown).plots_from_text().unwrap();
        assert_eq!(seen(Some("docs/performance/full.md")), "plots/");
        assert_eq!(seen(Some("/tmp/full.md")), "docs/performance/plots/");
        assert_eq!(seen(None), "docs/performance/plots/");
    }
}

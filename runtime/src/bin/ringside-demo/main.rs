//! `make demo`: one guest on our three daemons, shown end to end.
//!
//! Boots Debian's nginx and fio twice, with the root file system on virtiofs and on a
//! vhost-user-blk disk, and has every device do checked work. It drives the `ringside` program
//! that stands beside it, as a user would.

mod guest;
mod http;
mod metrics;
mod packages;
mod rootfs;
mod steps;
mod table;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use guest_image::Cache;

use steps::{Demo, Root};
use table::Table;

/// Shows one guest on the three daemons, end to end
#[derive(Debug, Parser)]
#[command(name = "ringside-demo", version)]
struct Options {
    /// Where logs and disk images of the demo go [default: a folder of the cache]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut table = Table::default();
    let outcome = show(&Options::parse(), &mut table);
    table.print();
    match outcome {
        Ok(()) => {
            println!("\nEverything worked.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Options, table: &mut Table) -> Result<()> {
    let cache = Cache::open_default()?;
    let work = options
        .work_dir
        .clone()
        .unwrap_or_else(|| cache.path("demo"));
    std::fs::create_dir_all(&work)
        .with_context(|| format!("cannot make the work directory {}", work.display()))?;
    println!("Logs and images are in {}", work.display());
    let demo = Demo::new(work)?;
    demo.check()?;
    demo.assemble(&cache, table)?;
    for root in [Root::Virtiofs, Root::Block] {
        demo.boot_and_show(root, table)?;
    }
    Ok(())
}

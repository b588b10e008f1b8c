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

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use guest_image::Cache;

use steps::{Demo, Root};
use table::{Table, say};

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
            say(format_args!("\nEverything worked.\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(format_args!("\nFAILED: {error:#}\n"));
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
    let _lock = only_one(&cache)?;
    say(format_args!("Logs and images are in {}\n", work.display()));
    let demo = Demo::new(work)?;
    demo.check()?;
    demo.assemble(&cache, table)?;
    for root in [Root::Virtiofs, Root::Block] {
        demo.boot_and_show(root, table)?;
    }
    Ok(())
}

/// Two demos would assemble the same tree and write the same images. The lock lasts as long as the
/// file is open.
fn only_one(cache: &Cache) -> Result<File> {
    let path = cache.path("demo.lock");
    let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if lock.try_lock().is_err() {
        say(format_args!("waiting for another ringside-demo to end\n"));
        lock.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(lock)
}

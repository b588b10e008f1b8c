//! `ringside-perf`: measures Ringside's daemons and what people use today.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ringside_perf::interrupt::Interrupt;
use ringside_perf::options::{Options, Scenario};
use ringside_perf::scenario::blk::{self, BlkOptions};

fn main() -> ExitCode {
    let Scenario::Blk(options) = Options::parse().scenario;
    match run_blk(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringside-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_blk(options: BlkOptions) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
    let config = options.validate()?;
    // Opened first, so that a bad path does not cost a whole run.
    let json = config.json.as_deref().map(|path| {
        let opened = File::create(path);
        opened.with_context(|| format!("--json: cannot write {}", path.display()))
    });
    let json = json.transpose()?;
    let report = blk::run(&config, &interrupt)?;
    if let Some(file) = json {
        let mut file = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, &report).context("--json")?;
        file.flush().context("--json")?;
    }
    print!("{}", blk::render(&report));
    anyhow::ensure!(report.complete, "interrupted: the report is not complete");
    Ok(())
}

//! `ringside-perf`: measures Ringside's daemons and what people use today.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ringside_perf::compare::{Terms, compare};
use ringside_perf::findings::{self, Findings};
use ringside_perf::interrupt::Interrupt;
use ringside_perf::options::{CompareOptions, Options, ReportOptions, Scenario};
use ringside_perf::page::{self, Illustrations};
use ringside_perf::scenario::blk::{self, BlkOptions};
use ringside_perf::scenario::boot::{self, BootOptions, Show};
use ringside_perf::scenario::documents::{self, DocumentsOptions};
use ringside_perf::scenario::fs::{self, FsOptions};
use ringside_perf::scenario::net::{self, NetOptions};
use ringside_perf::scenario::pods::{self, PodsConfig, PodsOptions};
use serde::Serialize;

fn main() -> ExitCode {
    let outcome = match Options::parse().scenario {
        Scenario::Blk(options) => run_blk(options),
        Scenario::Fs(options) => run_fs(options),
        Scenario::Net(options) => run_net(options),
        Scenario::Boot(options) => run_boot(options, Show::Times),
        Scenario::Memory(options) => run_boot(options, Show::Memory),
        Scenario::Documents(options) => run_documents(options),
        Scenario::Start(options) => run_pods(options, pods::start::run),
        Scenario::Growth(options) => run_pods(options, pods::growth::run),
        Scenario::Report(options) => report(&options),
        Scenario::Compare(options) => run_compare(options),
    };
    match outcome {
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
    let json = JsonFile::create(config.run.json.as_deref())?;
    let report = blk::run(&config, &interrupt)?;
    json.write(&report)?;
    print!("{}", blk::render(&report));
    anyhow::ensure!(report.complete, "interrupted: the report is not complete");
    Ok(())
}

fn run_fs(options: FsOptions) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
    let config = options.validate()?;
    let json = JsonFile::create(config.run.json.as_deref())?;
    let report = fs::run(&config, &interrupt)?;
    json.write(&report)?;
    print!("{}", fs::render(&report));
    anyhow::ensure!(report.complete, "interrupted: the report is not complete");
    Ok(())
}

fn run_net(options: NetOptions) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
    let config = options.validate()?;
    let json = JsonFile::create(config.run.json.as_deref())?;
    let report = net::run(&config, &interrupt)?;
    json.write(&report)?;
    print!("{}", net::render(&report));
    anyhow::ensure!(report.complete, "interrupted: the report is not complete");
    Ok(())
}

fn run_boot(options: BootOptions, show: Show) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
    let config = options.validate()?;
    let json = JsonFile::create(config.json.as_deref())?;
    let report = boot::run(&config, &interrupt)?;
    json.write(&report)?;
    print!("{}", boot::render(&report, show));
    anyhow::ensure!(report.complete, "interrupted: the report is not complete");
    Ok(())
}

fn run_documents(options: DocumentsOptions) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
    let config = options.validate()?;
    let json = JsonFile::create(config.json.as_deref())?;
    finish(json, &documents::run(&config, &interrupt)?)
}

fn run_pods(
    options: PodsOptions,
    run: fn(&PodsConfig, &Interrupt) -> Result<Findings, pods::Error>,
) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot listen to signals")?;
    let config = options.validate();
    let json = JsonFile::create(config.json.as_deref())?;
    finish(json, &run(&config, &interrupt)?)
}

/// Of scenarios whose report is the common form.
fn finish(json: JsonFile, found: &Findings) -> anyhow::Result<()> {
    json.write(found)?;
    print!("{}", page::markdown(std::slice::from_ref(found), None));
    anyhow::ensure!(found.complete, "interrupted: the report is not complete");
    Ok(())
}

fn report(options: &ReportOptions) -> anyhow::Result<()> {
    let runs = options.runs.iter().map(|path| findings::load(path));
    let runs: Vec<Findings> = runs.collect::<Result<_, _>>()?;
    let write = |option: &str, path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("{option} {}", path.display()))
    };
    if let Some(path) = &options.html {
        write("--html", path, page::html(&runs))?;
    }
    let plots = match &options.plots {
        Some(_) => page::plots(&runs),
        None => Vec::new(),
    };
    if let Some(folder) = &options.plots {
        std::fs::create_dir_all(folder).with_context(|| format!("--plots {}", folder.display()))?;
        for plot in plots.iter().flatten().flatten() {
            write("--plots", &folder.join(&plot.file), plot.svg.clone())?;
        }
    }
    let folder = options.plots_from_text();
    let illustrations = folder.as_deref().map(|folder| Illustrations {
        plots: &plots,
        folder,
    });
    if let Some(path) = &options.markdown {
        write("--markdown", path, page::markdown(&runs, illustrations))?;
    }
    if options.html.is_none() && options.markdown.is_none() {
        print!("{}", page::markdown(&runs, illustrations));
    }
    Ok(())
}

fn run_compare(options: CompareOptions) -> anyhow::Result<()> {
    let (old, new) = (findings::load(&options.old)?, findings::load(&options.new)?);
    anyhow::ensure!(
        old.scenario == new.scenario,
        "{} is a run of {}, and {} one of {}: there is nothing to compare",
        options.old.display(),
        old.scenario,
        options.new.display(),
        new.scenario
    );
    let terms = Terms {
        threshold: options.threshold / 100.0,
        by: options.by,
    };
    let comparison = compare(&old, &new, &terms);
    print!("{comparison}");
    anyhow::ensure!(!comparison.is_worse(), "ours became worse, or failed");
    anyhow::ensure!(
        comparison.is_told(),
        "nothing of ours is in both runs with three rounds or more: there is nothing to compare"
    );
    Ok(())
}

/// The file of `--json`: opened first, so that a bad path does not cost a whole run.
struct JsonFile(Option<File>);

impl JsonFile {
    fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            let opened = File::create(path);
            opened.with_context(|| format!("--json: cannot write {}", path.display()))
        };
        Ok(Self(path.map(create).transpose()?))
    }

    fn write(self, report: &impl Serialize) -> anyhow::Result<()> {
        if let Some(file) = self.0 {
            let mut file = BufWriter::new(file);
            serde_json::to_writer_pretty(&mut file, report).context("--json")?;
            file.flush().context("--json")?;
        }
        Ok(())
    }
}

//! Carries a workload out in a directory, mounted or bare.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::need;
use lab::process::{Daemon, DaemonBuilder};
use tempfile::TempDir;

use super::error::LoadError;
use super::ground::{DATA, FILES, Ground, SMALL, TREE};
use super::metadata;
use super::workload::{Load, Step, Workload, engine};
use crate::interrupt::Interrupt;
use crate::measure::Latency;
use crate::peer::fio::{Job, Place};

/// How long a program that was asked to end may take.
const SOON: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(2);

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) operations: u64,
    /// Operations per second.
    pub(super) rate: f64,
    pub(super) latency: Option<Latency>,
}

/// A workload that is ready to run once.
pub(super) struct Prepared<'a> {
    workload: Workload,
    ground: &'a Ground,
    /// Goes with the value.
    fresh: Option<TempDir>,
}

impl<'a> Prepared<'a> {
    /// Makes what the workload uses up, on the bare directory.
    pub(super) fn new(workload: Workload, ground: &'a Ground) -> Result<Self, LoadError> {
        let fresh = match workload.load {
            Load::Files { step: Step::Create } | Load::Dd { write: true } => Some((0, SMALL)),
            Load::Files { step: Step::Unlink } => Some((ground.files, SMALL)),
            Load::Whole { kib } => Some((whole_files(kib), kib as usize * 1024)),
            _ => None,
        };
        let fresh = fresh
            .map(|(files, bytes)| ground.fresh(files, bytes))
            .transpose();
        Ok(Self {
            workload,
            ground,
            fresh: fresh.map_err(|source| LoadError::File {
                path: ground.path().to_owned(),
                source,
            })?,
        })
    }

    /// Runs it in `base`, which shows the ground.
    pub(super) fn run(
        &self,
        base: &Path,
        duration: Duration,
        interrupt: &Interrupt,
    ) -> Result<Done, LoadError> {
        match self.workload.load {
            Load::Fio { .. } => self.fio(base, duration, interrupt),
            Load::Dd { write } => self.dd(base, write, interrupt),
            Load::Files { step } => self.files(step, base, interrupt),
            Load::Whole { kib } => self.whole(kib, base, interrupt),
            Load::Find => self.find(base, interrupt),
            Load::GitStatus => self.git_status(base, interrupt),
        }
    }

    /// Where the turn's own directory is, seen from `base`.
    fn fresh(&self, base: &Path) -> PathBuf {
        let name = self.fresh.as_ref().and_then(|dir| dir.path().file_name());
        name.map_or_else(|| base.join(FILES), |name| base.join(name))
    }

    fn fio(
        &self,
        base: &Path,
        duration: Duration,
        interrupt: &Interrupt,
    ) -> Result<Done, LoadError> {
        let Load::Fio {
            pattern,
            block,
            depth,
            jobs,
            direct,
        } = self.workload.load
        else {
            return self.find(base, interrupt);
        };
        let data = base.join(DATA);
        let job = Job {
            place: Place::Directory(&data),
            span: self.ground.span,
            direct,
            pattern: pattern.fio_name(),
            block,
            depth,
            threads: jobs,
            // A block that is read again comes out of the mount's cache: it would count for the
            // daemon and not be its work.
            each_once: !direct,
            warm_up: Duration::ZERO,
            duration,
        };
        let figures = job.run(&need::program("fio")?, engine(depth), interrupt)?;
        Ok(Done {
            operations: figures.requests,
            rate: figures.iops,
            latency: Some(figures.latency),
        })
    }

    fn dd(&self, base: &Path, write: bool, interrupt: &Interrupt) -> Result<Done, LoadError> {
        let count = self.ground.dd_count;
        let data = base.join(DATA).join(Place::file_name(0));
        let (from, to, flag) = match write {
            false => (data, PathBuf::from("/dev/null"), "iflag=direct"),
            true => (
                PathBuf::from("/dev/zero"),
                self.fresh(base).join("written"),
                "oflag=direct",
            ),
        };
        let builder = Daemon::builder(need::program("dd")?)
            .arg(format!("if={}", from.display()))
            .arg(format!("of={}", to.display()))
            .args(["bs=4k", &format!("count={count}"), flag]);
        program("dd", builder, interrupt, count.into())
    }

    fn files(&self, step: Step, base: &Path, interrupt: &Interrupt) -> Result<Done, LoadError> {
        let started = Instant::now();
        metadata::run(step, &self.fresh(base), self.ground.files, interrupt)?;
        Ok(done(self.ground.files.into(), started.elapsed()))
    }

    fn whole(&self, kib: u32, base: &Path, interrupt: &Interrupt) -> Result<Done, LoadError> {
        let (files, bytes) = (whole_files(kib), kib as usize * 1024);
        let started = Instant::now();
        metadata::read_whole(&self.fresh(base), files, bytes, interrupt)?;
        Ok(done(files.into(), started.elapsed()))
    }

    fn find(&self, base: &Path, interrupt: &Interrupt) -> Result<Done, LoadError> {
        let builder = Daemon::builder(need::program("find")?)
            .arg(base.join(TREE))
            .args(["-size", "+1000M"]);
        program("find", builder, interrupt, self.ground.tree_entries)
    }

    fn git_status(&self, base: &Path, interrupt: &Interrupt) -> Result<Done, LoadError> {
        // Without optional locks nothing is written: the next contestant finds the same index.
        let builder = Daemon::builder(need::program("git")?)
            .arg("-C")
            .arg(base.join(TREE))
            .args(["--no-optional-locks", "status", "--porcelain"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        program("git", builder, interrupt, self.ground.tree_entries)
    }
}

/// As many as make 64 MiB: few enough for a turn of a second, and not so few that the last one decides.
fn whole_files(kib: u32) -> u32 {
    ((64 << 10) / kib).clamp(16, 2000)
}

/// Runs a program to its end, for so many operations.
fn program(
    name: &'static str,
    builder: DaemonBuilder,
    interrupt: &Interrupt,
    operations: u64,
) -> Result<Done, LoadError> {
    let started = Instant::now();
    let mut process = builder.spawn()?;
    while process.is_running() {
        interrupt.check()?;
        std::thread::sleep(TICK.min(started.elapsed() / 100));
    }
    let elapsed = started.elapsed();
    let exit = process.wait_exit(SOON)?;
    if !exit.status.success() {
        return Err(LoadError::Failed {
            program: name,
            status: exit.status,
            said: exit.stderr,
        });
    }
    Ok(done(operations, elapsed))
}

fn done(operations: u64, elapsed: Duration) -> Done {
    Done {
        operations,
        rate: operations as f64 / elapsed.as_secs_f64(),
        latency: None,
    }
}

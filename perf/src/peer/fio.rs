//! fio on the file itself: how fast the host is without any daemon.

use std::path::Path;
use std::time::Duration;

use lab::process::{Daemon, Error as ProcessError};
use serde::Deserialize;

use crate::interrupt::{Interrupt, Interrupted};
use crate::measure::{Cost, Latency};

/// How fio reaches the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    /// io_uring with registered file and buffers: its quickest way.
    IoUring,
    /// pread and pwrite, one at a time.
    Psync,
    /// Linux AIO.
    Libaio,
}

/// Files for fio.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// One file, for all threads.
    File(&'a Path),
    /// A file for each thread: [`Place::file_name`] in a directory.
    Directory(&'a Path),
}

impl Place<'_> {
    /// fio's own name for the file of thread `index`.
    #[must_use]
    pub fn file_name(index: u16) -> String {
        format!("{NAME}.{index}.0")
    }

    fn argument(self) -> String {
        match self {
            Self::File(path) => format!("--filename={}", path.display()),
            Self::Directory(path) => format!("--directory={}", path.display()),
        }
    }
}

/// The job's name, which file names begin with.
const NAME: &str = "limit";

/// A load for fio.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What is read or written.
    pub place: Place<'a>,
    /// Bytes of it to use.
    pub span: u64,
    /// Whether to go past the page cache.
    pub direct: bool,
    /// `rw=`.
    pub pattern: &'a str,
    /// Bytes of a request.
    pub block: u32,
    /// Requests in flight in each thread.
    pub depth: u16,
    /// Threads.
    pub threads: u16,
    /// Random offsets come once before any comes again.
    pub each_once: bool,
    /// Time before the measurement; zero for none.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub duration: Duration,
}

/// What fio reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Requests completed.
    pub requests: u64,
    /// Requests per second.
    pub iops: f64,
    /// Latency from submission to completion.
    pub latency: Latency,
    /// fio's own processor time and context switches.
    pub cost: Cost,
}

/// fio gave no figures.
#[derive(Debug, thiserror::Error)]
pub enum FioError {
    /// It cannot be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It failed.
    #[error("fio ended with {status}: {said}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        said: String,
    },
    /// Its output is not what fio 3 prints.
    #[error("fio's JSON is not understood")]
    Json(#[from] serde_json::Error),
    /// Its output describes no job.
    #[error("fio's JSON describes no job")]
    NoJob,
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Engine {
    /// Its name in fio.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Psync => "psync",
            Self::Libaio => "libaio",
        }
    }
}

impl Job<'_> {
    /// fio's arguments.
    #[must_use]
    pub fn arguments(&self, engine: Engine) -> Vec<String> {
        let mut arguments = vec![
            format!("--name={NAME}"),
            self.place.argument(),
            format!("--size={}", self.span),
            format!("--direct={}", u8::from(self.direct)),
            format!("--rw={}", self.pattern),
            format!("--bs={}", self.block),
            format!("--iodepth={}", self.depth),
            format!("--numjobs={}", self.threads),
            format!("--ramp_time={}ms", self.warm_up.as_millis()),
            format!("--runtime={}ms", self.duration.as_millis()),
            format!("--ioengine={}", engine.name()),
        ];
        let always = [
            "--thread",
            "--time_based",
            "--randrepeat=0",
            "--group_reporting",
            "--lat_percentiles=1",
            "--clat_percentiles=0",
            "--percentile_list=50:90:99:99.9:99.99",
            "--allow_file_create=0",
            "--output-format=json",
        ];
        arguments.extend(always.map(str::to_owned));
        if !self.each_once {
            arguments.push("--norandommap".to_owned());
        }
        if engine == Engine::IoUring {
            arguments.extend(["--fixedbufs", "--registerfiles"].map(str::to_owned));
        }
        arguments
    }

    /// Runs it.
    ///
    /// # Errors
    /// When fio fails, or the user asks to stop.
    pub fn run(
        &self,
        fio: &Path,
        engine: Engine,
        interrupt: &Interrupt,
    ) -> Result<Figures, FioError> {
        let mut process = Daemon::builder(fio).args(self.arguments(engine)).spawn()?;
        while process.is_running() {
            interrupt.sleep(Duration::from_millis(20))?;
        }
        let exit = process.wait_exit(Duration::from_secs(1))?;
        if !exit.status.success() {
            return Err(FioError::Failed {
                status: exit.status,
                said: exit.stderr,
            });
        }
        parse(&exit.stdout)
    }
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<JobOutput>,
}

#[derive(Deserialize)]
struct JobOutput {
    read: Direction,
    write: Direction,
    /// Percent of `job_runtime`, which sums over the threads of the group.
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
    /// Milliseconds.
    job_runtime: f64,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    iops: f64,
    lat_ns: Latencies,
}

#[derive(Deserialize)]
struct Latencies {
    percentile: Option<Percentiles>,
}

#[derive(Deserialize)]
struct Percentiles {
    #[serde(rename = "50.000000")]
    p50: f64,
    #[serde(rename = "90.000000")]
    p90: f64,
    #[serde(rename = "99.000000")]
    p99: f64,
    #[serde(rename = "99.900000")]
    p999: f64,
    #[serde(rename = "99.990000")]
    p9999: f64,
}

/// Reads what `fio --output-format=json` prints.
///
/// # Errors
/// When it is something else.
pub fn parse(text: &str) -> Result<Figures, FioError> {
    // Notes of fio's may stand before the object.
    let object = text.find('{').map_or(text, |start| &text[start..]);
    let output: Output = serde_json::from_str(object)?;
    let job = output.jobs.into_iter().next().ok_or(FioError::NoJob)?;
    let direction = match job.write.total_ios > job.read.total_ios {
        true => job.write,
        false => job.read,
    };
    let percentiles = direction.lat_ns.percentile;
    let latency = percentiles.map(|p| Latency {
        p50_ns: p.p50,
        p90_ns: Some(p.p90),
        p99_ns: p.p99,
        p999_ns: p.p999,
        p9999_ns: Some(p.p9999),
    });
    let cpu_ns = (job.usr_cpu + job.sys_cpu) / 100.0 * job.job_runtime * 1e6;
    Ok(Figures {
        requests: direction.total_ios,
        iops: direction.iops,
        latency: latency.unwrap_or_default(),
        cost: Cost {
            cpu_ns: Duration::from_secs_f64(cpu_ns.max(0.0) / 1e9)
                .as_nanos()
                .try_into()
                .unwrap_or(u64::MAX),
            switches: job.ctx,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From fio 3.33, shortened.
    const OUTPUT: &str = r#"fio: note: something
{ "fio version" : "fio-3.33", "jobs" : [ { "jobname" : "limit", "error" : 0, "job_runtime" : 2000,
  "read" : { "total_ios" : 0, "iops" : 0.0, "lat_ns" : { "min" : 0, "N" : 0 } },
  "write" : { "total_ios" : 400000, "iops" : 200000.5, "lat_ns" : { "min" : 900,
    "percentile" : { "50.000000" : 1416, "90.000000" : 2000, "99.000000" : 2736, "99.900000" : 9999, "99.990000" : 10500 } } },
  "usr_cpu" : 18.0, "sys_cpu" : 70.0, "ctx" : 12 } ] }"#;

    #[test]
    fn figures_of_the_direction_that_ran() {
        let figures = parse(OUTPUT).unwrap();
        assert_eq!((figures.requests, figures.iops), (400_000, 200_000.5));
        assert_eq!(
            (figures.latency.p50_ns, figures.latency.p999_ns),
            (1416.0, 9999.0)
        );
        // 88 % of two seconds.
        assert_eq!(figures.cost.cpu_ns, 1_760_000_000);
        assert_eq!(figures.cost.switches, 12);
    }

    #[test]
    fn other_text_is_refused() {
        assert!(matches!(parse("fio: failed"), Err(FioError::Json(_))));
        assert!(matches!(parse(r#"{"jobs": []}"#), Err(FioError::NoJob)));
    }

    #[test]
    fn arguments_name_the_load() {
        let job = Job {
            place: Place::File(Path::new("/f")),
            span: 4096,
            direct: true,
            pattern: "randread",
            block: 4096,
            depth: 16,
            threads: 2,
            each_once: false,
            warm_up: Duration::from_millis(50),
            duration: Duration::from_millis(100),
        };
        let arguments = job.arguments(Engine::Psync);
        for wanted in [
            "--direct=1",
            "--numjobs=2",
            "--ramp_time=50ms",
            "--runtime=100ms",
        ] {
            assert!(
                arguments.iter().any(|argument| argument == wanted),
                "{wanted}"
            );
        }
        assert!(!arguments.iter().any(|argument| argument == "--fixedbufs"));
    }
}

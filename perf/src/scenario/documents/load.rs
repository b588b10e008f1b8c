//! What the documents ran: dd, fio in three shapes, small files, nginx under ab.

use super::error::Error;
use crate::findings::{Better, Told};
use crate::peer::fio;

/// Small files that are read and looked at.
pub(super) const SMALL_FILES: u32 = 100;

/// One of the documents' loads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// `dd bs=4k`, direct.
    Dd { write: bool },
    /// fio, direct, libaio.
    Fio {
        pattern: &'static str,
        block: &'static str,
        depth: u32,
        jobs: u32,
    },
    /// Small files, again and again.
    Files { stat: bool },
    /// One worker process, `ab -k -c 100`.
    Nginx,
}

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    /// Of fio.
    pub(super) milliseconds: u64,
    /// Of what knows whole seconds only.
    pub(super) seconds: u64,
    /// Blocks of dd.
    pub(super) blocks: u64,
}

/// What a turn gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) rate: f64,
    pub(super) operations: f64,
}

/// What was used outside the guest's processors.
pub(super) const DEVICE: Told = Told {
    what: "the device's processor time for an operation",
    unit: "us",
    better: Better::Lower,
};

const fn fio(pattern: &'static str, block: &'static str, depth: u32, jobs: u32) -> Load {
    Load::Fio {
        pattern,
        block,
        depth,
        jobs,
    }
}

impl Load {
    /// All of them, in the documents' order.
    pub(super) const ALL: [Self; 13] = [
        Self::Dd { write: false },
        Self::Dd { write: true },
        fio("read", "128k", 128, 1),
        fio("write", "128k", 128, 1),
        fio("randread", "4k", 32, 16),
        fio("randwrite", "4k", 32, 16),
        fio("read", "4k", 1, 1),
        fio("write", "4k", 1, 1),
        fio("randread", "4k", 1, 1),
        fio("randwrite", "4k", 1, 1),
        Self::Files { stat: false },
        Self::Files { stat: true },
        Self::Nginx,
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Dd { write: false } => "dd-read".to_owned(),
            Self::Dd { write: true } => "dd-write".to_owned(),
            Self::Fio {
                pattern,
                block,
                depth,
                jobs,
            } => format!("fio-{block}-d{depth}x{jobs}-{pattern}"),
            Self::Files { stat: false } => "open-read".to_owned(),
            Self::Files { stat: true } => "stat".to_owned(),
            Self::Nginx => "nginx".to_owned(),
        }
    }

    pub(super) fn told(self) -> Told {
        let (what, unit) = match self {
            Self::Dd { .. } => ("throughput", "MB/s"),
            Self::Fio { .. } => ("operations", "1/s"),
            Self::Files { .. } => ("files", "1/s"),
            Self::Nginx => ("requests", "1/s"),
        };
        Told {
            what,
            unit,
            better: Better::Higher,
        }
    }

    /// The guest's order for the file system at `/mnt/NAME`.
    pub(super) fn order(self, name: &str, measure: Measure) -> String {
        let Measure {
            milliseconds,
            seconds,
            blocks,
        } = measure;
        match self {
            Self::Dd { write: false } => format!("dd_read /mnt/{name}/in {blocks}"),
            Self::Dd { write: true } => format!("dd_write /mnt/{name}/out {blocks}"),
            Self::Fio {
                pattern,
                block,
                depth,
                jobs,
            } => {
                format!("fio_job /mnt/{name}/data {pattern} {block} {depth} {jobs} {milliseconds}")
            }
            Self::Files { stat } => {
                let mode = if stat { "stat" } else { "read" };
                format!("perl /files.pl {mode} /mnt/{name}/small {SMALL_FILES} {seconds}")
            }
            Self::Nginx => format!("load {name} {seconds}"),
        }
    }

    /// Reads what the order's programs said.
    pub(super) fn read(self, said: &str) -> Result<Reading, Error> {
        let reading = match self {
            Self::Dd { .. } => dd(said),
            Self::Fio { .. } => fio::parse(said).ok().map(|figures| Reading {
                rate: figures.iops,
                // Far below 2^52.
                operations: figures.requests as f64,
            }),
            Self::Files { .. } => files(said),
            Self::Nginx => ab(said),
        };
        let reading = reading.filter(|it| it.operations > 0.0 && it.rate > 0.0);
        reading.ok_or_else(|| Error::Said {
            load: self.name(),
            said: said.to_owned(),
        })
    }
}

/// `67108864 bytes (67 MB, 64 MiB) copied, 1.5 s, 44.7 MB/s`
fn dd(said: &str) -> Option<Reading> {
    let line = said.lines().find(|line| line.contains(" copied, "))?;
    let bytes: f64 = line.split(' ').next()?.parse().ok()?;
    let (_, time) = line.split_once(" copied, ")?;
    let seconds: f64 = time.split(' ').next()?.parse().ok()?;
    Some(Reading {
        rate: bytes / 1e6 / seconds,
        operations: bytes / 4096.0,
    })
}

fn files(said: &str) -> Option<Reading> {
    let mut words = said
        .lines()
        .find_map(|it| it.strip_prefix("files "))?
        .split(' ');
    let done: f64 = words.next()?.parse().ok()?;
    let seconds: f64 = words.next()?.parse().ok()?;
    Some(Reading {
        rate: done / seconds,
        operations: done,
    })
}

/// Only pages count: an error's page is quick.
fn ab(said: &str) -> Option<Reading> {
    let figure = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    if said.contains("Non-2xx") || figure("Failed requests:")? > 0.0 {
        return None;
    }
    Some(Reading {
        rate: figure("Requests per second:")?,
        operations: figure("Complete requests:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_programs_words_are_read() {
        let dd = Load::Dd { write: true };
        let said = "16384+0 records in\n67108864 bytes (67 MB, 64 MiB) copied, 2 s, 33.6 MB/s\n";
        let reading = dd.read(said).unwrap();
        assert_eq!((reading.rate, reading.operations), (33.554_432, 16384.0));
        let files = Load::Files { stat: true };
        assert_eq!(files.read("files 300 1.50\n").unwrap().rate, 200.0);
        let ab = "Complete requests:      500\nFailed requests:        0\n\
                  Requests per second:    250.50 [#/sec] (mean)\n";
        assert_eq!(Load::Nginx.read(ab).unwrap().rate, 250.5);
    }

    #[test]
    fn errors_are_not_figures() {
        let ab = "Complete requests:      500\nFailed requests:        0\nNon-2xx responses:      500\n\
                  Requests per second:    250.50 [#/sec] (mean)\n";
        assert!(Load::Nginx.read(ab).is_err());
        assert!(Load::Dd { write: false }.read("dd: cannot open").is_err());
    }
}

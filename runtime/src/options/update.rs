//! `ringside update`: new limits of a container that is there.

use std::path::PathBuf;

use clap::Args;

/// Options of `ringside update`, by runc's names. What is not given stays as it is.
#[derive(Debug, Clone, Default, Args)]
pub struct UpdateOptions {
    /// A `linux.resources` object of config.json, `-` for standard input; options say otherwise of single values
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Most memory, as 512M; -1 for no limit
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true, value_parser = limit)]
    pub memory: Option<i64>,
    /// Memory that is kept for it where there is little
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = limit)]
    pub memory_reservation: Option<i64>,
    /// Most memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = limit)]
    pub memory_swap: Option<i64>,
    /// Processors' time, as 1.5; the period is 100 ms
    #[arg(long, value_name = "N", value_parser = cpus, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub cpus: Option<f64>,
    /// Microseconds of a processor in each period; -1 for no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Weight against other containers of the pod, 1024 is usual
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Processors of the guest that it may use, as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes of the guest that it may use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container's id
    pub id: String,
}

/// A size as people type it, or -1.
fn limit(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let size: super::ByteSize = text.parse().map_err(|error| format!("{error}"))?;
    i64::try_from(size.0).map_err(|_| "too large".to_owned())
}

fn cpus(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok();
    number
        .filter(|it| (0.01..=1024.0).contains(it))
        .ok_or("a number of processors from 0.01 to 1024")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_sizes_or_none() {
        assert_eq!((limit("-1"), limit("64M")), (Ok(-1), Ok(64 << 20)));
        assert!(limit("-2").is_err() && limit("x").is_err());
        assert_eq!(cpus("1.5"), Ok(1.5));
        assert!(cpus("0").is_err() && cpus("nan").is_err());
    }
}

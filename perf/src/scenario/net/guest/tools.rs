//! iperf3 and ping on the host's side of a guest's network.

use std::process::Command;
use std::time::{Duration, Instant};

use lab::need;
use serde::Deserialize;

use super::line_up::Seat;
use super::load::GuestLoad;
use crate::measure::Histogram;
use crate::scenario::net::error::TurnError;
use crate::scenario::net::ground::Ground;

/// Between two pings.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long a guest's iperf3 may take until it listens.
const PATIENCE: Duration = Duration::from_secs(15);

/// What passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Of the stream, as its receiver counted.
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
    /// Of answered pings.
    pub(super) latency: Histogram,
}

/// iperf3's JSON, as far as it is of use here.
#[derive(Deserialize)]
struct Report {
    end: Option<End>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bytes: u64,
    seconds: f64,
}

/// Waits until the guest's iperf3 answers.
pub(super) fn await_server(seat: &Seat, ground: &Ground) -> Result<(), TurnError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match stream(seat, ground, &["-n", "1M"]) {
            Err(TurnError::Tool { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(200));
            }
            outcome => return outcome.map(drop),
        }
    }
}

/// Lets the load pass for that long; iperf3 knows whole seconds only.
pub(super) fn pass(
    load: GuestLoad,
    seat: &Seat,
    ground: &Ground,
    time: Duration,
) -> Result<Passed, TurnError> {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let seconds = seconds.to_string();
    match load {
        GuestLoad::TcpOut => stream(seat, ground, &["-t", &seconds, "-R"]),
        GuestLoad::TcpIn => stream(seat, ground, &["-t", &seconds]),
        GuestLoad::Ping => ping(seat, ground, time),
    }
}

fn stream(seat: &Seat, ground: &Ground, options: &[&str]) -> Result<Passed, TurnError> {
    let arguments = [&["-J", "-c", &seat.address], options].concat();
    let output = run(seat, ground, "iperf3", &arguments)?;
    read_report(&output).ok_or_else(|| complaint("iperf3", &output))
}

fn read_report(json: &str) -> Option<Passed> {
    let report: Report = serde_json::from_str(json).ok()?;
    let sum = report.end.filter(|_| report.error.is_none())?.sum_received;
    Some(Passed {
        bytes: sum.bytes,
        elapsed: Duration::try_from_secs_f64(sum.seconds).ok()?,
        ..Passed::default()
    })
}

fn ping(seat: &Seat, ground: &Ground, time: Duration) -> Result<Passed, TurnError> {
    let count = (time.as_millis() / INTERVAL.as_millis())
        .max(50)
        .to_string();
    let interval = INTERVAL.as_secs_f64().to_string();
    let arguments = ["-n", "-c", &count, "-i", &interval, &seat.address];
    let started = Instant::now();
    let output = run(seat, ground, "ping", &arguments)?;
    let mut passed = Passed {
        elapsed: started.elapsed(),
        ..Passed::default()
    };
    for nanoseconds in output.lines().filter_map(round_trip) {
        passed.latency.record(nanoseconds);
    }
    match passed.latency.total() {
        0 => Err(complaint("ping", &output)),
        _ => Ok(passed),
    }
}

/// `64 bytes from 192.0.2.2: icmp_seq=1 ttl=64 time=0.123 ms`, in nanoseconds.
fn round_trip(line: &str) -> Option<u64> {
    let (_, time) = line.split_once(" time=")?;
    let milliseconds: f64 = time.strip_suffix(" ms")?.parse().ok()?;
    let took = Duration::try_from_secs_f64(milliseconds / 1e3).ok()?;
    u64::try_from(took.as_nanos()).ok()
}

fn run(
    seat: &Seat,
    ground: &Ground,
    program: &'static str,
    arguments: &[&str],
) -> Result<String, TurnError> {
    let path = need::program(program).map_err(lab::netns::Error::from);
    let mut command = Command::new(path.map_err(crate::scenario::net::Error::from)?);
    command.args(arguments);
    let output = seat.run(ground, || command.output())?;
    let output = output.map_err(|source| TurnError::Run { program, source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn complaint(program: &'static str, output: &str) -> TurnError {
    let report: Option<Report> = serde_json::from_str(output).ok();
    let said = report.and_then(|report| report.error);
    TurnError::Tool {
        program,
        said: said.unwrap_or_else(|| output.lines().last().unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_read_in_nanoseconds() {
        let line = "64 bytes from 192.0.2.2: icmp_seq=1 ttl=64 time=0.123 ms";
        assert_eq!(round_trip(line), Some(123_000));
        assert_eq!(
            round_trip("3 packets transmitted, 0 received, time 8ms"),
            None
        );
    }

    #[test]
    fn the_receivers_bytes_count() {
        let json = r#"{"start":{},"end":{"sum_sent":{"bytes":9,"seconds":1},
            "sum_received":{"bytes":7,"seconds":2.5,"bits_per_second":22.4}}}"#;
        let passed = read_report(json).unwrap();
        assert_eq!((passed.bytes, passed.elapsed.as_millis()), (7, 2500));
        let refused = r#"{"start":{},"end":{},"error":"unable to connect to server"}"#;
        assert!(read_report(refused).is_none());
    }
}

//! What the daemons count: Prometheus text on a unix socket.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const REQUESTS: &str = "ringside_requests_total{";

/// Reads the metrics of the daemon behind `socket` and returns how many requests it served.
pub(crate) fn requests(socket: &Path) -> Result<u64> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no metrics at {}", socket.display()))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .context("cannot set a timeout")?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("the metrics do not end")?;
    let total = total(&text);
    ensure!(total > 0, "{} counts no request:\n{text}", socket.display());
    Ok(total)
}

/// The sum over all queues.
fn total(text: &str) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with(REQUESTS));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn queues_add_up() {
        let text = "# TYPE ringside_requests_total counter\n\
                    ringside_requests_total{queue=\"0\"} 3\n\
                    ringside_requests_total{queue=\"1\"} 4\n\
                    ringside_errors_total{queue=\"0\"} 9\n";
        assert_eq!(super::total(text), 7);
    }
}

//! Processor time that neither the contestant nor the driver used: what disturbed a turn.

use std::fs;
use std::time::{Duration, Instant};

use crate::sys::cpu_clock;

/// Kernel ticks a second in /proc/stat (`USER_HZ`, fixed by the ABI on Linux).
const TICKS: f64 = 100.0;

/// A reading of the host's and this process's processor time.
#[derive(Clone, Copy, Debug)]
pub struct Bystanders {
    at: Instant,
    busy: Duration,
    own: Duration,
}

impl Bystanders {
    /// Reads both.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let own = cpu_clock::process_nanoseconds(std::process::id()).unwrap_or(0);
        let status = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            at: Instant::now(),
            busy: busy(&stat),
            own: Duration::from_nanos(own) + ended_children(&status),
        }
    }

    /// Percent of one processor that others used since, when a contestant that still runs used
    /// that much. One that was a child and has ended (fio) is known by itself.
    #[must_use]
    pub fn percent_since(&self, contestant: Duration) -> f64 {
        let now = Self::read();
        let own = now.own.saturating_sub(self.own) + contestant;
        let others = now.busy.saturating_sub(self.busy).saturating_sub(own);
        others.as_secs_f64() / (now.at - self.at).as_secs_f64() * 100.0
    }
}

/// `cutime` and `cstime` (proc(5), `/proc/PID/stat`, fields 16 and 17).
fn ended_children(status: &str) -> Duration {
    // The second field is a name in parentheses, which may contain blanks.
    let rest = status.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_ascii_whitespace().skip(13).take(2);
    let ticks: u32 = ticks.flat_map(str::parse::<u32>).sum();
    Duration::from_secs_f64(f64::from(ticks) / TICKS)
}

/// All but idle, I/O wait and the guest columns, which user time contains (proc(5), `/proc/stat`);
/// time that a hypervisor stole counts: somebody else had it.
fn busy(stat: &str) -> Duration {
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_ascii_whitespace().skip(1).take(8).enumerate();
    let busy = ticks.filter(|(column, _)| !matches!(column, 3 | 4));
    let ticks: u32 = busy.flat_map(|(_, text)| text.parse::<u32>()).sum();
    Duration::from_secs_f64(f64::from(ticks) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let stat = "cpu  100 10 50 9000 800 5 5 30 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy(stat), Duration::from_secs(2));
    }

    #[test]
    fn ended_children_are_ours() {
        let status = "7 (a b) S 1 7 7 0 -1 0 0 0 0 0 11 12 150 50 20 0 1";
        assert_eq!(ended_children(status), Duration::from_secs(2));
    }

    #[test]
    fn a_share_is_finite() {
        let reading = Bystanders::read();
        std::thread::sleep(Duration::from_millis(20));
        assert!(reading.percent_since(Duration::ZERO).is_finite());
    }
}

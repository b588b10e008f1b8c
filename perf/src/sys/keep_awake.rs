//! Threads that run when nobody else does, so that no processor halts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const NAME: &str = "keep-awake";

/// Keeps every processor of this process from halting until it is dropped.
#[derive(Debug)]
pub(crate) struct KeepAwake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl KeepAwake {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let allowed = sched_getaffinity(None).unwrap_or_default();
        let processors = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        let threads = processors.map(|cpu| {
            let stop = Arc::clone(&stop);
            let named = thread::Builder::new().name(NAME.to_owned());
            named.spawn(move || spin(cpu, &stop))
        });
        // Without one its processor may halt, as without the option.
        let threads = threads.flatten().collect();
        Self { stop, threads }
    }
}

impl Drop for KeepAwake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn spin(cpu: usize, stop: &AtomicBool) {
    let mut only = CpuSet::new();
    only.set(cpu);
    // A thread that would compete with the measured ones must not spin.
    if sched_setaffinity(None, &only).is_err() || yield_to_all().is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Makes this thread `SCHED_IDLE` (sched(7)).
fn yield_to_all() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer names a live structure; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::measure::Processes;

    #[test]
    fn it_spins_until_it_is_dropped() {
        let me = Processes::one(std::process::id());
        let spun = || me.threads_cpu_ns(|name| name == NAME);
        let awake = KeepAwake::start();
        // On a busy host they hardly get a turn, and a thread that was joined is still listed for a moment.
        let deadline = Instant::now() + Duration::from_secs(30);
        let wait_until = |is_met: &dyn Fn(u64) -> bool| {
            while !is_met(spun()) {
                assert!(Instant::now() < deadline, "{} ns", spun());
                thread::sleep(Duration::from_millis(10));
            }
        };
        wait_until(&|spun| spun >= 1_000_000);
        drop(awake);
        wait_until(&|spun| spun == 0);
    }
}

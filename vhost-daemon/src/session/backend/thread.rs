//! The library's thread of a queue, while the queue's ring may run.

use std::ffi::CString;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use super::{Backend, Device};
use crate::metrics::QueueMetrics;
use crate::queue::RunningQueue;
use crate::session::StopFlag;
use crate::session::ring::{Panicked, Ring, Take};
use crate::sys::name_current_thread;
use crate::worker::{self, Outcome};

/// Between two tries to start a queue for which something of the host's is short.
const PAUSE: Duration = Duration::from_millis(200);

impl<D: Device> Backend<D> {
    /// Serves the ring for as long as it may run.
    pub(super) fn serve_ring(&self, index: usize, ring: &Ring) {
        let _named = self.metrics.name_log_lines();
        let queue_metrics = self.metrics.queue(&index.to_string());
        let name = format!("queue{index}");
        if let Ok(name) = CString::new(name.as_str()) {
            name_current_thread(&name);
        }
        loop {
            let in_flight = || self.device.in_flight_log(index);
            match ring.take(&queue_metrics, in_flight, || self.logs_writes()) {
                Ok(Take::Run(queue, stop)) => self.run(index, ring, *queue, &stop, &name),
                Ok(Take::Rest) => return,
                Ok(Take::Refuse(why, stop)) => {
                    if let Some(suppressed) = queue_metrics.stop_limiter.permit() {
                        let why: &dyn std::error::Error = &why;
                        tracing::error!(queue = name, why, suppressed, "queue cannot run");
                    }
                    stop.wait_until_raised();
                    ring.give_back(Ok(None));
                }
                Err(error) => {
                    tell(&queue_metrics, &name, &error);
                    ring.wait_for_change(PAUSE);
                }
            }
        }
    }

    fn run(&self, index: usize, ring: &Ring, queue: RunningQueue, stop: &StopFlag, name: &str) {
        let mut lease = Lease {
            ring,
            outcome: None,
        };
        match self.work(index, queue, stop, name) {
            Ok(outcome) => {
                lease.outcome = Some(outcome);
                // A worker that gave up by itself must not be started again and again: wait to be told.
                stop.wait_until_raised();
            }
            Err(error) => {
                tell(&self.metrics.queue(&index.to_string()), name, &error);
                if is_short(&error) {
                    stop.wait_until_raised_within(PAUSE);
                } else {
                    stop.wait_until_raised();
                }
            }
        }
    }

    /// # Errors
    /// When the worker cannot be made or started: nothing was taken from the ring.
    fn work(
        &self,
        index: usize,
        queue: RunningQueue,
        stop: &StopFlag,
        name: &str,
    ) -> io::Result<Outcome> {
        let features = self.acknowledged.load(Ordering::Acquire);
        let worker = self.device.worker(index, features)?;
        worker::run(worker, queue, stop, self.poll, name)
    }
}

fn tell(metrics: &QueueMetrics, queue: &str, error: &io::Error) {
    // The same for as long as it is tried.
    if let Some(suppressed) = metrics.stop_limiter.permit_about(error.raw_os_error()) {
        tracing::error!(queue, %error, suppressed, "queue cannot be started");
    }
}

/// Whether it may be there in a moment: descriptors, memory that is locked.
fn is_short(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    Errno::from_io_error(error).is_some_and(|error| short.contains(&error))
}

/// Gives the ring back even when the worker panics: the control thread must never wait for ever.
struct Lease<'a> {
    ring: &'a Ring,
    outcome: Option<Outcome>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.ring.give_back(if panicked {
            Err(Panicked)
        } else {
            Ok(self.outcome)
        });
    }
}
